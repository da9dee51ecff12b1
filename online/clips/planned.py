"""The clips of a plan, packed: a server holds those of many trainers, and each has millions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Int64, Integer, UInt32

from online.clips.clip import ClipSpec

STEP = 1 << 10


class Planned(Sequence[ClipSpec]):
    """Clips in some order, at 16 bytes each."""

    def __init__(
        self,
        names: list[str],
        recordings: UInt32[np.ndarray, " n"],
        starts: Int64[np.ndarray, " n"],
        lengths: UInt32[np.ndarray, " n"],
    ) -> None:
        """`recordings` are places in `names`."""
        self._names = names
        self._recordings = recordings
        self._starts = starts
        self._lengths = lengths

    def count_of(self, length: int) -> int:
        """How many clips have `length` frames."""
        return int(np.count_nonzero(self._lengths == length))

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> ClipSpec: ...
    @overload
    def __getitem__(self, place: slice | Integer[np.ndarray, " m"]) -> Planned: ...

    def __getitem__(self, place: int | slice | Integer[np.ndarray, " m"]) -> ClipSpec | Planned:
        chosen = (self._recordings[place], self._starts[place], self._lengths[place])
        if isinstance(place, slice | np.ndarray):
            return Planned(self._names, *chosen)
        recording, start, length = (int(number) for number in chosen)
        return ClipSpec(self._names[recording], start, length)

    def __iter__(self) -> Iterator[ClipSpec]:
        for first in range(0, len(self), STEP):
            some = slice(first, first + STEP)
            numbers = (self._recordings[some], self._starts[some], self._lengths[some])
            for recording, start, length in zip(*(n.tolist() for n in numbers), strict=True):
                yield ClipSpec(self._names[recording], start, length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType] (equal to lists, and large)
