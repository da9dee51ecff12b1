"""Cutting recordings into clips, so that every triplet belongs to exactly one clip.

With frame_stride s = 2 and clip_length L = 3, a run of 10 frames without a gap holds the triplets
that end at frames 4..9, and is cut into

    frames    0  1  2  3  4  5  6  7  8  9
    clip 0   [.  .  .  .  4  5  6]              start 0, length 7, owns triplets 4 5 6
    clip 1            [.  .  .  .  7  8  9]     start 3, length 7, owns triplets 7 8 9

A clip carries the 2s frames before its first triplet's last frame, which its neighbour carries too.
The end of a run gives a shorter clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from ingest.frame import Frames
from online.clips.limits import Small
from setcon.checks import check_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Which triplets there are, and how many travel together."""

    clip_length: Small = 32
    """Triplets that a full clip owns."""
    frame_stride: Small = 1
    """Distance in frames between the three frames of a triplet."""

    def __post_init__(self) -> None:
        check_at_least(1, clip_length=self.clip_length, frame_stride=self.frame_stride)

    @property
    def overlap(self) -> int:
        """Frames of a clip before its first triplet's last frame."""
        return 2 * self.frame_stride

    @property
    def frames(self) -> int:
        """Frames of a full clip."""
        return self.overlap + self.clip_length

    @property
    def overhead(self) -> float:
        """Frames carried twice, as a share of the frames that are new."""
        return self.overlap / self.clip_length

    def triplets(self, length: int) -> int:
        """How many triplets a clip of `length` frames owns."""
        return max(0, length - self.overlap)


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """Frames start..stop of a recording, stop not included."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, order=True)
class ClipSpec:
    """Frames start..start+length of a recording."""

    recording: str
    start: int
    length: int
    server: int = 0
    """Which of the feed's servers holds the recording, in the feed's order."""

    def __str__(self) -> str:
        return f"{self.recording}[{self.start}:{self.start + self.length}]"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Clip:
    """The frames of a `ClipSpec`: all of them, or none where they were deleted meanwhile."""

    spec: ClipSpec
    frames: Frames

    @classmethod
    def released(cls, spec: ClipSpec) -> Clip:
        """A clip whose frames were deleted before they were sent."""
        return cls(
            spec,
            Frames(
                images=np.empty((0, 1, 1, 3), np.uint8),
                pts_ns=np.empty(0, np.int64),
                gap=np.empty(0, np.bool_),
            ),
        )

    @property
    def is_released(self) -> bool:
        """Whether its frames were deleted: there is nothing to learn from."""
        return not len(self.frames)

    @property
    def nbytes(self) -> int:
        """Size of the images."""
        return self.frames.images.nbytes

    @property
    def last_captured_ns(self) -> int | None:
        """Wall clock at the capture of its last frame; None for files."""
        captured_ns = self.frames.captured_ns
        return None if captured_ns is None else int(captured_ns[-1])


def runs(gap: Bool[np.ndarray, " n"], within: Iterable[Interval]) -> list[Interval]:
    """Longest runs of frames without a gap inside each interval, in time order.

    `gap[i]` says that frame i does not continue frame i - 1, so a run may begin with one.
    """
    breaks = np.flatnonzero(gap)
    found = []
    for interval in within:
        first, last = np.searchsorted(breaks, [interval.start + 1, interval.stop])
        edges = [interval.start, *breaks[first:last].tolist(), interval.stop]
        found += [Interval(a, b) for a, b in pairwise(edges) if b > a]
    return found


def cut(
    recording: str,
    gap: Bool[np.ndarray, " n"],
    within: Sequence[Interval],
    config: ClipConfig,
    *,
    closed: bool = True,
) -> list[ClipSpec]:
    """Cut the parts of a recording that lie `within` intervals into clips, in time order.

    `gap[i]` says that frame i does not continue frame i - 1. The intervals are disjoint and in time
    order; no clip crosses their borders. While the last of them may still grow, `closed` is False:
    its last clip is then left out unless it is full, so that cutting again later gives the same
    clips and then more.
    """
    found = runs(gap, within)
    clips = [clip for run in found for clip in _cut_run(recording, run, config)]
    if not closed and found and found[-1].stop == within[-1].stop:
        growing = list(_cut_run(recording, found[-1], config))
        if growing and growing[-1].length < config.frames:
            clips.pop()
    return clips


def _cut_run(recording: str, run: Interval, config: ClipConfig) -> Iterator[ClipSpec]:
    left = config.triplets(len(run))
    start = run.start
    while left > 0:
        owned = min(left, config.clip_length)
        yield ClipSpec(recording, start, config.overlap + owned)
        start += owned
        left -= owned
