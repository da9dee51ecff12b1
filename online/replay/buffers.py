"""Buffers of past clips that never hold more bytes of images than they were given.

    Fifo        the newest clips
    Reservoir   a uniform sample of all clips
    MinRed      clips that are least alike, in `online.replay.minred`

A clip that comes by again while it is in a buffer, as in a second epoch, is not in it twice. A new
policy for the long-term buffer is a file with a class like MinRed, and an entry in `LONG_TERM`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from online.clips.clip import Clip, ClipSpec
from online.replay.long_term import Feedback, LongTerm
from online.replay.minred import MinRed


class Fifo:
    """The newest clips; a newer copy takes the place of an older one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._clips: dict[ClipSpec, Clip] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips.values())

    def insert(self, clip: Clip) -> None:
        """Add `clip` as the newest and drop the oldest that no longer fit."""
        self._drop(clip.spec)
        self._clips[clip.spec] = clip
        self.nbytes += clip.nbytes
        while self.nbytes > self._max_bytes:
            self._drop(next(iter(self._clips)))

    def _drop(self, spec: ClipSpec) -> None:
        if spec in self._clips:
            self.nbytes -= self._clips.pop(spec).nbytes


class Reservoir:
    """A uniform sample of all clips ever inserted (Vitter's algorithm R)."""

    def __init__(self, max_bytes: int, *, rng: np.random.Generator) -> None:
        self._max_bytes = max_bytes
        self._rng = rng
        self._clips: list[Clip] = []
        self._specs: set[ClipSpec] = set()
        self._seen = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips)

    def insert(self, clip: Clip) -> None:
        """Keep `clip` with probability clips held / clips seen, in place of another."""
        self._seen += 1
        if clip.spec in self._specs:
            return
        if self.nbytes + clip.nbytes <= self._max_bytes:
            self._add(clip)
        elif (victim := int(self._rng.integers(self._seen))) < len(self):
            self._remove(victim)
            self._add(clip)
            while self.nbytes > self._max_bytes:  # it was larger than the clip it replaced
                self._remove(int(self._rng.integers(len(self))))

    def update(self, clips: Sequence[Clip], feedback: Feedback) -> None:
        """Do nothing: chance alone decides."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def restore(
        self, clips: Sequence[Clip | None], *, inserts: int, arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Hold exactly `clips`, in this order, out of `inserts`."""
        self._clips, self._specs, self.nbytes, self._seen = [], set(), 0, inserts
        for clip in clips:
            if clip is not None:
                self._add(clip)

    def _add(self, clip: Clip) -> None:
        self._clips.append(clip)
        self._specs.add(clip.spec)
        self.nbytes += clip.nbytes

    def _remove(self, index: int) -> None:
        self._clips[index], self._clips[-1] = self._clips[-1], self._clips[index]
        gone = self._clips.pop()
        self._specs.remove(gone.spec)
        self.nbytes -= gone.nbytes


LONG_TERM: dict[str, type[LongTerm]] = {"reservoir": Reservoir, "minred": MinRed}
"""The policies by their names in `replay.long_term`."""
