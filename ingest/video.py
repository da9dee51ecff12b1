"""What every reader of video offers: frames in time order, and what became of each.

with open_video("bikes.mp4", size=128, fit="crop") as reader:
    for frame in reader.frames():
        ...
reader.counters    # decoded = stored + dropped + duplicate + resampled
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

from ingest.frame import Frame

Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What became of the frames so far: decoded = stored + dropped + duplicate + resampled."""

    decoded: int = 0
    stored: int = 0
    """Frames handed on, and so kept."""
    dropped: int = 0
    """Frames the decoder marked as corrupt, or a live source had no room for."""
    duplicate: int = 0
    """Frames that bear the time of the frame before them."""
    resampled: int = 0
    """Frames left out because fewer frames per second were asked for."""
    corrupt_packets: int = 0
    """Packets that did not decode; not frames, so beside the sum."""
    gaps: int = 0
    """Stored frames that do not continue the one before them, the first included."""

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def __sub__(self, other: "Counters") -> "Counters":
        return Counters(
            **{f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What is known of a source before its first frame is decoded."""

    name: str
    """The path or address, as messages show it."""
    reader: str
    """`pyav`, `decord`, `images` or `archive`."""
    height: int
    width: int
    """Size of the frames that come out, in pixels."""
    source_height: int
    source_width: int
    """Size of the frames as they are displayed: upright, with square pixels."""
    fps: float | None
    """Frames per second that come out, where the source says."""
    expected_frames: int | None
    """How many frames will come out, as far as the header can be believed."""
    codec: str
    has_masks: bool = False
    live: bool = False


@runtime_checkable
class VideoReader(Protocol):
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

        Times grow strictly. The first frame yielded is always a gap. A later call starts anew
        and ends the earlier iterator. Raises VideoError where the source does not decode.
        """
        ...

    def close(self) -> None:
        """Release the source; closing twice is allowed."""
        ...

    def __enter__(self) -> "VideoReader": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
