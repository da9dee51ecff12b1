"""The clips of a plan, packed: a server holds those of many trainers, and each has millions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Bool, Integer

from online.clips.clip import ClipConfig, ClipSpec, Cuts

STEP = 1 << 10


class Cut:
    """All clips of some recordings, numbered in time order, at 24 bytes for a run without a gap."""

    def __init__(self, names: Sequence[str], cuts: Sequence[Cuts], config: ClipConfig) -> None:
        """`cuts` are those of the recording of the same place in `names`."""
        none = np.empty(0, np.int64)
        self._names = names
        self._config = config
        self._recordings = np.repeat(np.arange(len(names)), [len(found.starts) for found in cuts])
        self._starts = np.concatenate([none, *(found.starts for found in cuts)])
        self._stops = np.concatenate([none, *(found.stops for found in cuts)])
        counts = np.concatenate([none, *(found.counts for found in cuts)])
        self._firsts = np.concatenate([none, [0], counts.cumsum()])
        """Number of each run's first clip, and of all clips."""

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def nbytes(self) -> int:
        """What the numbers take."""
        return 4 * self._starts.nbytes

    @property
    def full(self) -> int:
        """How many clips are of full length."""
        owned = self._stops - self._starts - self._config.overlap
        return int((owned // self._config.clip_length).sum())

    @property
    def fingerprint(self) -> bytes:
        """What differs where any clip is another."""
        numbers = (self._recordings, self._starts, self._stops)
        config = f"{self._config.clip_length}/{self._config.frame_stride}"
        return b"".join([*(n.astype("<i8").tobytes() for n in numbers), config.encode()])

    def specs(self, numbers: Integer[np.ndarray, " m"]) -> Iterator[ClipSpec]:
        """The clips of these numbers."""
        length, overlap = self._config.clip_length, self._config.overlap
        runs = np.searchsorted(self._firsts, numbers, side="right") - 1
        starts = self._starts[runs] + length * (numbers - self._firsts[runs])
        lengths = np.minimum(starts + overlap + length, self._stops[runs]) - starts
        numbered = zip(
            self._recordings[runs].tolist(), starts.tolist(), lengths.tolist(), strict=True
        )
        for recording, start, frames in numbered:
            yield ClipSpec(self._names[int(recording)], start, frames)


class Shard(Sequence[int]):
    """The numbers of one shard's clips in time order, found when they are asked for."""

    def __init__(self, counts: Sequence[int], begins: Sequence[int], shards: int) -> None:
        """Of the `counts` clips of each recording, every `shards`-th from one of `begins` on."""
        self._shards = shards
        self._begins = np.array(begins, np.int64)
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._firsts = self._ends - counts
        ours = -(-np.maximum(np.array(counts, np.int64) - self._begins, 0) // shards)
        self._our_ends = ours.cumsum()

    def __len__(self) -> int:
        return int(self._our_ends[-1]) if len(self._our_ends) else 0

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...

    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        recording = int(np.searchsorted(self._our_ends, place, side="right"))
        before = int(self._our_ends[recording - 1]) if recording else 0
        first = int(self._firsts[recording] + self._begins[recording])
        return first + self._shards * (place - before)

    def has(self, numbers: Integer[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which of some numbers are among these."""
        recordings = np.searchsorted(self._ends, numbers, side="right")
        within = numbers - self._firsts[recordings]
        return within % self._shards == self._begins[recordings]


class Planned(Sequence[ClipSpec]):
    """Clips in some order, each made when it is asked for."""

    def __init__(self, cut: Cut, order: Sequence[int] | Integer[np.ndarray, " n"]) -> None:
        """`order` are numbers of clips."""
        self._cut = cut
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return self._cut.nbytes + (self._order.nbytes if isinstance(self._order, np.ndarray) else 0)

    @overload
    def __getitem__(self, place: int) -> ClipSpec: ...
    @overload
    def __getitem__(self, place: slice) -> list[ClipSpec]: ...

    def __getitem__(self, place: int | slice) -> ClipSpec | list[ClipSpec]:
        if isinstance(place, slice):
            return list(self._cut.specs(np.array(self._order[place], np.int64)))
        return next(self._cut.specs(np.array([self._order[place]], np.int64)))

    def __iter__(self) -> Iterator[ClipSpec]:
        for first in range(0, len(self), STEP):
            yield from self[first : first + STEP]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType] (equal to lists, and large)
