"""What every reader of video offers: frames in time order, and what became of each.

with open_video("bikes.mp4", size=128, fit="crop") as reader:
    for frame in reader.frames():
        ...
reader.counters    # decoded = stored + dropped + duplicate + resampled
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ingest.closing import Closing
from ingest.frame import Frame
from ingest.store.records import Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What is known about a source before its first frame is decoded."""

    name: str
    """The path or address, as messages show it."""
    reader: str
    """`pyav`, `decord`, `images` or `archive`."""
    height: int
    width: int
    """Size of the frames that come out, in pixels."""
    fps: float | None
    """Frames per second that come out, where the source says."""
    expected_frames: int | None
    """How many frames will come out, if the header is right."""
    codec: str
    has_masks: bool = False
    promised_frames: int | None = None
    """How many frames the header says there are, before any are left out."""
    promised_seconds: float | None = None
    """How long the header says the footage is."""


@runtime_checkable
class VideoReader(Closing, Protocol):
    """A source of frames, in time order, that can be read once or again from a given time."""

    @property
    def info(self) -> VideoInfo:
        """What is known before decoding."""
        ...

    @property
    def counters(self) -> Counters:
        """What became of the frames of the latest `frames()` call, up to the last one yielded."""
        ...

    def frames(self, *, from_pts_ns: int | None = None) -> Iterator[Frame]:
        """Yield frames in time order, from the first one at or after `from_pts_ns`.

        Times grow strictly. The first frame yielded is always a gap. A later call starts again
        and ends the earlier iterator. Raises VideoError where the source does not decode.
        """
        ...
