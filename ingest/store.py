"""What every store of recordings offers, and the one small record that says what is in it.

    STORE/
      store.json                    format and version: what makes a directory a store
      recordings/NAME/commit.json   the truth: how many frames are safely on disk
      recordings/NAME/...           frames, pts_ns, gap, captured_ns, masks; may run ahead of it

A writer puts data on disk first and then replaces the commit record in one step, so a reader that
looks at nothing else never sees a torn or a missing frame, also beside a live writer.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from ingest.chunk_cache import ChunkCache
from ingest.counters import Counters
from ingest.errors import DamagedChunkError
from ingest.fitting import Fit
from ingest.frame import Frames

StoreFormat = Literal["zarr", "h5"]
Pixels = Literal["frames", "masks"]
Index = Literal["pts_ns", "gap", "captured_ns"]

MAX_SIDE = 15_000
"""Longest side of a frame, in pixels."""
_RANGES = {
    "length": (0, 1 << 40),
    "height": (1, MAX_SIDE),
    "width": (1, MAX_SIDE),
    "chunk_length": (1, 1 << 10),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which source a recording was made from: compared by content, not by path."""

    path: str
    """Absolute path or address; for people."""
    part: str = ""
    """Which part of the file, where it holds several recordings: `train` or `test`."""
    size_bytes: int = 0
    digest: str = ""
    """SHA-256 over the first and last MiB and those of its masks; random for live sources, which
    are never the same again."""

    def same_content(self, other: "Source") -> bool:
        """Whether both name the same bytes, wherever they lie."""
        mine = (self.part, self.size_bytes, self.digest)
        return mine == (other.part, other.size_bytes, other.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """How the frames of a recording are made from its source."""

    size: int | None = 128
    """Side of the square frames in pixels; None keeps the size of the source."""
    fit: Fit = "crop"
    """How an oblong image becomes a square: cut its sides, add black bars, or distort it."""
    fps: float | None = None
    """Leave out frames above this rate; None keeps all. Sources without a clock run at it."""
    reader: str = "auto"
    """`auto`, `pyav`, `decord` or `camera`; a recording remembers the reader that made it."""

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= 8192:
            raise ValueError(f"size must be 1 to 8192 pixels, not {self.size}")
        if self.fps is not None and not 1e-3 <= self.fps <= 1e6:
            raise ValueError(f"fps must be 0.001 to 1000000 frames per second, not {self.fps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """How much of a recording is safely on disk; replaced atomically after its data."""

    version: int = 1
    """2 where frames were let go of, which programs that know of version 1 only take for damage."""
    length: int = 0
    """Frames committed: indices released..length may be read."""
    released: int = 0
    """The first frames, in whole blocks, of which the pixels were let go of; the times and gaps of
    all stay."""
    complete: bool = False
    """True when no frame will follow."""
    durable: bool = True
    """Whether all that it speaks of was synced; once it is complete it always was."""
    live: bool = False
    height: int
    width: int
    has_masks: bool = False
    chunk_length: int
    """Frames per chunk: what is compressed, checked and cached together."""
    source: Source
    settings: RecordSettings
    first_pts_ns: int | None = None
    last_pts_ns: int | None = None
    counters: Counters = Counters()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        for field, (least, most) in _RANGES.items():
            value = getattr(self, field)
            if not least <= value <= most:
                raise ValueError(f"{field} must be {least} to {most}, not {value}")
        if not 0 <= self.released <= self.length:
            raise ValueError(f"{self.released} frames let go of, of {self.length}")
        counts = {"size_bytes": self.source.size_bytes} | asdict(self.counters)
        if below := {name: count for name, count in counts.items() if count < 0}:
            raise ValueError(f"counts cannot be below 0: {below}")
        times = (self.first_pts_ns, self.last_pts_ns)
        if not (_in_order(times) if self.length else times == (None, None)):
            raise ValueError(f"{self.length} frames cannot last from {times[0]} to {times[1]} ns")

    @property
    def identity(self) -> str:
        """What stays as it is while a recording grows, and tells it from one in its place."""
        source = (self.source.part, self.source.size_bytes, self.source.digest)
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


def _in_order(times: tuple[int | None, int | None]) -> bool:
    first, last = times
    return first is not None and last is not None and -(1 << 63) <= first <= last < 1 << 63


@dataclass(frozen=True, slots=True, eq=False)
class StoredChunk:
    """What one checksum guards: the values of a field for a run of frames, or their damage."""

    field: Pixels | Index
    values: Shaped[np.ndarray, "n ..."] | None
    damage: DamagedChunkError | None = None


@runtime_checkable
class RecordingReader(Protocol):
    """Random access to the committed frames of one recording; for one thread at a time."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def commit(self) -> CommitRecord:
        """The commit record last read from disk."""
        ...

    def refresh(self) -> CommitRecord:
        """Read the commit record again, to see what a writer has added."""
        ...

    def read(self, start: int, stop: int, *, masks: bool = False) -> Frames:
        """Frames start..stop as fresh arrays, commit.released <= start <= stop <= commit.length.

        `masks` asks for the label maps where the recording has them. Raises IndexError outside
        the committed range, ReleasedError where frames were let go of, and DamagedChunkError
        where a chunk is missing or fails its checksum.
        """
        ...

    def chunks(self) -> Iterator[StoredChunk]:
        """Read every chunk there is once, times before pixels; a damaged one brings its error."""
        ...

    def pts_ns(self, start: int = 0) -> Int64[np.ndarray, " n"]:
        """Times of all committed frames from `start` on."""
        ...

    def gap(self, start: int = 0) -> Bool[np.ndarray, " n"]:
        """The same: True where a frame does not continue its predecessor."""
        ...

    def close(self) -> None:
        """Release files and locks; closing twice is allowed."""
        ...

    def __enter__(self) -> "RecordingReader": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class RecordingWriter(Protocol):
    """The one writer of a recording; holds its lock until closed."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def commit(self) -> CommitRecord:
        """The commit record on disk."""
        ...

    @property
    def block_length(self) -> int:
        """How many frames every `append` takes: whole chunks."""
        ...

    def append(self, frames: Frames, counters: Counters) -> CommitRecord:
        """Write exactly `block_length` frames, then commit them; `counters` are the totals so far.

        Raises StorageFullError, after which everything committed before stays readable.
        """
        ...

    def finish(self, tail: Frames | None, counters: Counters) -> CommitRecord:
        """Write the last, shorter run of frames, then commit the recording as complete."""
        ...

    def release(self, before: int) -> CommitRecord:
        """Let go of the pixels before frame `before`, as far as these are whole blocks."""
        ...

    def close(self) -> None:
        """Release files and locks; closing twice is allowed."""
        ...

    def __enter__(self) -> "RecordingWriter": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class Store(Protocol):
    """A directory of recordings, each on its own."""

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def format(self) -> StoreFormat: ...  # noqa: D102

    def recordings(self) -> list[str]:
        """Names of all recordings, sorted."""
        ...

    def uncommitted(self) -> list[str]:
        """Names of what lies there without a commit record, and which nobody is writing: of a
        writer killed before its first commit, or the record was lost."""
        ...

    def commit(self, name: str) -> CommitRecord:
        """The commit record of a recording, fresh from disk; NoSuchRecordingError without one."""
        ...

    def size_bytes(self, name: str) -> int:
        """What a recording takes on disk."""
        ...

    def leftovers(self, name: str) -> list[Path]:
        """Files that a killed writer left half written; nothing in them counts."""
        ...

    def is_being_written(self, name: str) -> bool:
        """Whether a living process is adding to a recording."""
        ...

    def reader(self, name: str, *, cache: ChunkCache | None = None) -> RecordingReader:
        """Open a recording for reading.

        `cache` bounds the decoded chunks that all readers keep which share it; without one, the
        reader has its own of 64 MiB.
        """
        ...

    def writer(
        self,
        name: str,
        *,
        source: Source,
        settings: RecordSettings,
        height: int,
        width: int,
        has_masks: bool = False,
        live: bool = False,
        max_chunk_length: int | None = None,
        overwrite: bool = False,
    ) -> RecordingWriter:
        """Begin a recording, or continue an unfinished one behind its last committed frame.

        `max_chunk_length` bounds how long a live frame waits for its chunk. `overwrite` removes
        a recording of that name first. Raises RecordingExistsError where the stored recording has
        another source or settings, RecordingLockedError where another process writes it.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete a recording from disk."""
        ...
