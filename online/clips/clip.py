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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

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


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """Clips of one recording in time order: the runs that they are cut from, each with a clip."""

    starts: Int64[np.ndarray, " runs"]
    stops: Int64[np.ndarray, " runs"]
    config: ClipConfig

    @property
    def counts(self) -> Int64[np.ndarray, " runs"]:
        """Clips of each run."""
        owned = self.stops - self.starts - self.config.overlap
        return -(-owned // self.config.clip_length)

    def __len__(self) -> int:
        return int(self.counts.sum())

    @property
    def nbytes(self) -> int:
        """What the numbers take."""
        return self.starts.nbytes + self.stops.nbytes

    def after(self, count: int) -> Cuts:
        """The same without the first `count` clips."""
        ends = self.counts.cumsum()
        run = int(np.searchsorted(ends, count, side="right"))
        starts = self.starts[run:].copy()
        if len(starts):
            starts[0] += self.config.clip_length * (count - (int(ends[run - 1]) if run else 0))
        return Cuts(starts, self.stops[run:], self.config)

    def beginning_before(self, frame: int) -> int:
        """How many clips begin before a frame."""
        length = self.config.clip_length
        return int(np.clip(-((self.starts - frame) // length), 0, self.counts).sum())

    @property
    def last_start(self) -> int:
        """Where the last clip begins; there must be one."""
        return int(self.starts[-1]) + self.config.clip_length * (int(self.counts[-1]) - 1)

    def moved(self, frames: int) -> Cuts:
        """The same, so many frames later."""
        return Cuts(self.starts + frames, self.stops + frames, self.config)

    def of(self, recording: str) -> list[ClipSpec]:
        """Each by itself, with the name of the recording."""
        length, overlap = self.config.clip_length, self.config.overlap
        return [
            ClipSpec(recording, begin, min(begin + overlap + length, stop) - begin)
            for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True)
            for begin in range(start, stop - overlap, length)
        ]


def cut(
    recording: str,
    gap: Bool[np.ndarray, " n"],
    within: Sequence[Interval],
    config: ClipConfig,
    *,
    closed: bool = True,
) -> list[ClipSpec]:
    """The clips of parts of a recording, each by itself.

    `gap[i]` says that frame i does not continue frame i - 1.
    """
    return cuts(np.flatnonzero(gap), within, config, closed=closed).of(recording)


def cuts(
    breaks: Int64[np.ndarray, " m"],
    within: Sequence[Interval],
    config: ClipConfig,
    *,
    closed: bool = True,
) -> Cuts:
    """Cut the parts of a recording that lie `within` intervals into clips, in time order.

    `breaks` are the frames that do not continue their predecessor, in order. The intervals are
    disjoint and in time order; no clip crosses their borders. While the last of them may still
    grow, `closed` is False: its last clip is then left out unless it is full, so that cutting again
    later gives the same clips and then more.
    """
    starts, stops = _runs(breaks, within)
    if not closed and len(starts) and stops[-1] == within[-1].stop:
        owned = max(0, int(stops[-1] - starts[-1]) - config.overlap)
        stops[-1] -= owned % config.clip_length
    has_clip = stops - starts > config.overlap
    return Cuts(starts[has_clip], stops[has_clip], config)


def _runs(
    breaks: Int64[np.ndarray, " m"], within: Sequence[Interval]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """First and last frame (exclusive) of the longest runs without a gap inside each interval.

    A run may begin with a break.
    """
    starts, stops = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for interval in within:
        if interval.stop > interval.start:
            first, last = np.searchsorted(breaks, [interval.start + 1, interval.stop])
            inside = breaks[first:last]
            starts.append(np.concatenate([[interval.start], inside]))
            stops.append(np.concatenate([inside, [interval.stop]]))
    return np.concatenate(starts), np.concatenate(stops)
