"""Which part of a recording is held out, and never trained on.

    file      [############ train ############|== held out ==]      the last share of its frames
    growing   [######## train ########|.. not yet assigned ..]      the same share of what there is
    camera    [#### 4 min ####|= 1 min =|#### 4 min ####|= ...      every fifth minute

A frame is never reassigned. While a file is still being ingested its border can only move to the
right, so frames beyond the border belong to neither part until the recording is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from online.clips.clip import Interval
from online.clips.limits import Count, Name, Side
from setcon.checks import check_within

MINUTE_NS = 60_000_000_000
BLOCK_MINUTES = 5
"""Minutes in a block of a camera's recording, of which the last one is held out."""
DEFAULT_HOLDOUT = 0.2
"""Share of each recording that is never trained on, by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingSummary:
    """One recording as a trainer sees it."""

    name: Name
    length: Count
    """Frames committed."""
    complete: bool
    live: bool
    height: Side
    width: Side
    has_masks: bool
    gaps: Count
    """Frames that do not continue their predecessor, the first one included."""
    train: tuple[Interval, ...]
    held_out: tuple[Interval, ...]
    released: Count = 0
    """Frames at the beginning that were deleted; they are in neither part."""

    def __post_init__(self) -> None:
        check_within(0, self.length, released=self.released, gaps=self.gaps)
        for part in (self.train, self.held_out):
            edges = [edge for interval in part for edge in (interval.start, interval.stop)]
            if any(a > b for a, b in pairwise([0, *edges, self.length])):
                raise ValueError(f"{part} are not parts of {self.length} frames, in time order")

    @property
    def text(self) -> str:
        """The footage and its split in words, the same for as long as neither changes."""
        if self.live:
            return f"{self.name}: camera, {self.width}x{self.height}"
        held_out = sum(map(len, self.held_out))
        return (
            f"{self.name}: {self.length} frames of {self.width}x{self.height}, {held_out} held out"
        )

    @property
    def kept(self) -> Interval:
        """All frames that can be fetched."""
        return Interval(self.released, self.length)


@dataclass(frozen=True, slots=True)
class Split:
    """Which frames of a recording are trained on and which are held out."""

    train: tuple[Interval, ...]
    held_out: tuple[Interval, ...]

    def without(self, released: int) -> Split:
        """What is left of both parts without the first `released` frames, which were deleted."""
        return Split(_from(released, self.train), _from(released, self.held_out))


def split(
    frames: Int64[np.ndarray, " n"] | int,
    *,
    live: bool,
    complete: bool,
    holdout: float,
    guard: int = 0,
    start: int = 0,
    first_pts_ns: int | None = None,
) -> Split:
    """Divide a recording's first n frames, or those from `start` on, and count from there.

    `frames` are their times, or how many there are where these are not `live`. A `live` recording
    comes from a camera and has no end to take a share of; of another, `complete` says that these
    are all frames there will be. `holdout` is the share of the frames that is held out, 0 for none.
    `guard` frames are left out of training wherever a camera's held-out minute begins or ends, or
    might begin next. `start` is a frame that is trained on; `first_pts_ns` is the time of the
    recording's first frame, where that is not among these.
    """
    if live and holdout:
        if isinstance(frames, int):
            raise TypeError("a camera's recording is split by the times of its frames")
        began_ns = frames[:1] if first_pts_ns is None else first_pts_ns
        return _split_by_time(frames - began_ns, guard)
    n = start + (frames if isinstance(frames, int) else len(frames))
    border = n - int(n * holdout + 1e-9)  # 0.2 * 15 is a hair below 3 in some orders of rounding
    held_out = [Interval(border - start, n - start)] if complete else []
    return Split(_nonempty([Interval(0, border - start)]), _nonempty(held_out))


def _split_by_time(since_ns: Int64[np.ndarray, " n"], guard: int) -> Split:
    """Split frames by their time since the recording's first; the first one here is either that
    one, or one within a stretch of training."""
    n = len(since_ns)
    minute = since_ns // MINUTE_NS
    is_held_out = minute % BLOCK_MINUTES == BLOCK_MINUTES - 1
    edges = [0, *(np.flatnonzero(np.diff(is_held_out)) + 1).tolist(), n]
    train, held_out = [], []
    for start, stop in pairwise(edges):
        if n and is_held_out[start]:
            held_out.append(Interval(start, stop))
        else:
            train.append(Interval(start + guard if start else 0, max(start, stop - guard)))
    return Split(_nonempty(train), _nonempty(held_out))


def _from(start: int, intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    """The parts of intervals at `start` or after it."""
    return _nonempty([Interval(max(i.start, start), i.stop) for i in intervals])


def _nonempty(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    return tuple(i for i in intervals if i.stop > i.start)
