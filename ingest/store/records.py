"""The one small record that says what of a recording is on disk, and what it was made from."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from setcon.checks import check_at_least, check_within

StoreFormat = Literal["zarr", "h5"]
Pixels = Literal["frames", "masks"]
Index = Literal["pts_ns", "gap", "captured_ns"]
Fit = Literal["crop", "pad", "stretch"]
Codec = Literal["zstd", "lz4", "none"]
"""What compresses frames: zstd most, lz4 less and faster to read, none not at all."""
Size = int | tuple[int, int] | None
"""Of frames: the side of a square, (width, height), or None for that of the source."""

Content = tuple[str, int, str]
"""Part, size and digest of a source."""

MAX_BREAKS = 256
"""Breaks that a commit record lists: it is read whole, and written again at each commit."""
MAX_CHUNK_BYTES = 1 << 30
"""Pixels of a chunk that holds several frames; this program writes chunks of a MiB."""
MAX_SIDE = 15_000
"""Longest side of a frame, in pixels."""


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What became of the frames so far: decoded = stored + dropped + duplicate + resampled."""

    decoded: int = 0
    stored: int = 0
    """Frames handed on, and so kept."""
    dropped: int = 0
    """Frames that refer to damaged or missing ones, or that a live source had no room for."""
    duplicate: int = 0
    """Frames that bear the time of the frame before them; newer recordings keep those."""
    resampled: int = 0
    """Frames left out because fewer frames per second were asked for."""
    corrupt_packets: int = 0
    """Packets that are damaged; not frames, so not in the sum."""
    gaps: int = 0
    """Stored frames that do not continue the one before them, the first included."""

    @property
    def by_name(self) -> dict[str, int]:
        """Each count; `asdict` takes several times as long, which adds up over many records."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def found(self) -> int:
        """Frames of the source as far as it was read, damaged ones included."""
        return self.decoded + self.corrupt_packets

    @property
    def left_out(self) -> int:
        """Frames that are missing from the recording and were not left out on request."""
        return self.dropped + self.duplicate + self.corrupt_packets

    @property
    def losses_text(self) -> str:
        """How many frames were left out, and why."""
        why = {
            "damaged": self.corrupt_packets,
            "that may refer to damaged or missing ones": self.dropped,
            "with the time of the one before": self.duplicate,
        }
        reasons = ", ".join(f"{count} {reason}" for reason, count in why.items() if count)
        return f"{self.left_out} of {self.found} frames left out ({reasons})"

    def __add__(self, other: "Counters") -> "Counters":
        added = other.by_name
        return Counters(**{name: count + added[name] for name, count in self.by_name.items()})

    def __sub__(self, other: "Counters") -> "Counters":
        taken = other.by_name
        return Counters(**{name: count - taken[name] for name, count in self.by_name.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which source a recording was made from: compared by content, not by path."""

    path: str
    """Absolute path or address; for people."""
    part: str = ""
    """Which part of the file, where it holds several recordings: `train`, `test` or `track2`."""
    size_bytes: int = 0
    digest: str = ""
    """SHA-256 over the first and last MiB and those of its masks; random for live sources, which
    are never the same again."""

    @property
    def content(self) -> Content:
        """Its bytes: equal where two sources name the same, wherever they are."""
        return self.part, self.size_bytes, self.digest

    def same_content(self, other: "Source") -> bool:
        """Whether both name the same bytes, wherever they are."""
        return self.content == other.content


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """How the frames of a recording are made from its source."""

    size: Size = 128
    """Side of square frames, or (width, height), in pixels; None keeps the size of the source."""
    fit: Fit = "crop"
    """How an image of another shape is fitted: cut its sides, add black bars, or distort it."""
    fps: float | None = None
    """Leave out frames above this rate; None keeps all. Sources without a clock run at it."""
    reader: str = "auto"
    """`auto`, `pyav`, `decord` or `camera`; a recording remembers the reader that made it."""

    def __post_init__(self) -> None:
        if self.size is not None:
            width, height = sides(self.size)
            check_within(1, 8192, size=width)
            check_within(1, 8192, size=height)
        if self.fps is not None:
            check_within(0.001, 1_000_000, fps=self.fps)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """How much of a recording is safely on disk; replaced atomically after its data."""

    version: int = 1
    """2 where frames were deleted, which programs that only know version 1 take for damage."""
    length: int = 0
    """Frames committed: indices released..length may be read."""
    released: int = 0
    """The first frames, in whole blocks, whose pixels were deleted; the times and gaps of all
    stay."""
    complete: bool = False
    """True when no frame will follow."""
    durable: bool = True
    """Whether everything it describes was synced; always so once it is complete."""
    live: bool = False
    height: int
    width: int
    has_masks: bool = False
    chunk_length: int
    """Frames per chunk: what is compressed, checked and cached together."""
    codec: Codec = "zstd"
    """What frames are compressed with; each chunk says so too, and is decoded by what it says."""
    source: Source
    settings: RecordSettings
    first_pts_ns: int | None = None
    last_pts_ns: int | None = None
    counters: Counters = Counters()
    breaks: tuple[int, ...] | None = None
    """The frames that do not continue their predecessor, the first one included; None where they
    are too many to list, and in records of older programs: then `gap` has to be read."""

    def __post_init__(self) -> None:
        check_within(0, 1 << 40, length=self.length)
        check_within(1, MAX_SIDE, height=self.height, width=self.width)
        check_within(1, 1 << 10, chunk_length=self.chunk_length)
        frame = self.height * self.width * 3
        check_within(1, max(1, MAX_CHUNK_BYTES // frame), chunk_length=self.chunk_length)
        check_within(0, self.length, released=self.released)
        check_at_least(0, size_bytes=self.source.size_bytes, **self.counters.by_name)
        times = (self.first_pts_ns, self.last_pts_ns)
        if not (_in_order(times) if self.length else times == (None, None)):
            raise ValueError(
                f"first_pts_ns and last_pts_ns must be those of {self.length} frames, got {times}"
            )

        if self.breaks and not _ascending((-1, *self.breaks, self.length)):
            raise ValueError(f"breaks must be some of {self.length} frames, in order")

    @property
    def identity(self) -> str:
        """What stays the same while a recording grows, and differs in one that replaces it."""
        source = self.source.content
        frames = (self.height, self.width, self.has_masks, self.live, self.chunk_length)
        return repr((source, self.settings, frames))

    @property
    def raw_bytes(self) -> int:
        """Size of the images that can be read, without compression."""
        return (self.length - self.released) * self.height * self.width * 3

    @property
    def duration_seconds(self) -> float:
        """Time from the first committed frame to the last."""
        if self.first_pts_ns is None or self.last_pts_ns is None:
            return 0.0
        return (self.last_pts_ns - self.first_pts_ns) / 1e9


def _ascending(numbers: tuple[int, ...]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


def _in_order(times: tuple[int | None, int | None]) -> bool:
    first, last = times
    return first is not None and last is not None and -(1 << 63) <= first <= last < 1 << 63
