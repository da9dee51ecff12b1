"""MinRed (Purushwalkam et al. 2022): a buffer that keeps the clips that are least alike.

    insert(clip)               when full, one of the two most alike clips leaves
    update(clips, feedback)    a clip's direction moves towards what the model makes of it now

Alike is the cosine of features. A clip that was never trained on has none: it is not compared, and
leaves before it was seen only where fewer than two others were. Besides its images a clip costs
eight bytes per feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from online.clips.clip import Clip, ClipSpec
from online.replay.closest_pair import ClosestPair, on_grid
from online.replay.long_term import Feedback

SMOOTHING = 0.5
"""Share of a clip's direction that stays when it is seen again: features age as the model learns,
and are noisy from batch to batch."""
_RESTORED_AT_ONCE = 64


class MinRed:
    """Clips that are least alike under the model's features, oldest first."""

    def __init__(self, max_bytes: int, *, rng: np.random.Generator) -> None:
        self._max_bytes = max_bytes
        self._rng = rng
        self._clips: dict[int, Clip] = {}  # by number of arrival, which are the keys of the pair
        self._numbers: dict[ClipSpec, int] = {}
        self._arrivals = 0
        self._seen = ClosestPair()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips.values())

    @property
    def compared(self) -> int:
        """Similarities computed so far."""
        return self._seen.compared

    def insert(self, clip: Clip) -> None:
        """Add `clip` and drop one of the two most alike until the rest fits."""
        if clip.spec in self._numbers:
            return
        self._add(clip)
        while self.nbytes > self._max_bytes:
            self._remove(self._victim())

    def update(self, clips: Sequence[Clip], feedback: Feedback) -> None:
        """Note what the model makes of those clips of a batch that are in the buffer."""
        ours = [i for i, clip in enumerate(clips) if clip.spec in self._numbers]
        if not ours:
            return
        keys = [self._numbers[clips[i].spec] for i in ours]
        directions = on_grid(feedback.features[ours].astype(np.float64))
        again = [i for i, key in enumerate(keys) if key in self._seen]
        if again:
            before = self._seen.directions([keys[i] for i in again])
            directions[again] += SMOOTHING * (before - directions[again])
        self._seen.put(keys, on_grid(directions))

    def arrays(self) -> dict[str, np.ndarray]:
        """`index` of the clips that were seen, in the order held, and their `direction`."""
        seen = [(i, key) for i, key in enumerate(self._clips) if key in self._seen]
        directions = self._seen.directions([key for _, key in seen])
        return {
            "index": np.array([i for i, _ in seen], np.int64),
            "direction": directions.astype(np.float32),  # exact: see `closest_pair.GRID`
        }

    def restore(
        self, clips: Sequence[Clip | None], *, inserts: int, arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Hold exactly `clips`, oldest first, with their `arrays()`."""
        for clip in clips:
            if clip is None:
                self._arrivals += 1  # its number, which is its place in the arrays, stays its own
            else:
                self._add(clip)
        there = np.array([clips[i] is not None for i in arrays["index"].tolist()], dtype=bool)
        index = arrays["index"][there].tolist()
        directions = arrays["direction"][there].astype(np.float64)
        for start in range(0, len(index), _RESTORED_AT_ONCE):
            some = slice(start, start + _RESTORED_AT_ONCE)
            self._seen.put(index[some], directions[some])

    def _victim(self) -> int:
        """One of the two most alike, by a coin; the oldest where fewer than two were seen."""
        if len(self._seen) < 2:
            return next(iter(self._clips))
        return self._seen.find()[int(self._rng.integers(2))]

    def _add(self, clip: Clip) -> None:
        self._clips[self._arrivals] = clip
        self._numbers[clip.spec] = self._arrivals
        self._arrivals += 1
        self.nbytes += clip.nbytes

    def _remove(self, number: int) -> None:
        gone = self._clips.pop(number)
        del self._numbers[gone.spec]
        self.nbytes -= gone.nbytes
        if number in self._seen:
            self._seen.remove(number)
