"""What every store of recordings offers, and the one small record that says what is in it.

    STORE/
      store.json                    format and version: what makes a place a store
      recordings/NAME/commit.json   the truth: how many frames are safely on disk
      recordings/NAME/...           frames, pts_ns, gap, captured_ns, masks; may run ahead of it

A writer puts data on disk first and then replaces the commit record in one step, so a reader that
looks at nothing else never sees a torn or a missing frame, also alongside a live writer.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from ingest.closing import Closing
from ingest.errors import DamagedChunkError
from ingest.frame import Frames
from ingest.store.cache import ChunkCache
from ingest.store.records import (
    Codec,
    CommitRecord,
    Counters,
    Index,
    Pixels,
    RecordSettings,
    Source,
    StoreFormat,
)

Answer = TypeVar("Answer")

DTYPES: dict[Pixels | Index, np.dtype] = {
    "frames": np.dtype(np.uint8),
    "masks": np.dtype(np.uint8),
    "pts_ns": np.dtype(np.int64),
    "gap": np.dtype(np.bool_),
    "captured_ns": np.dtype(np.int64),
}
"""Types of the values of a field."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredChunk:
    """What one checksum guards: the values of a field for a run of frames, or their damage."""

    field: Pixels | Index
    values: Shaped[np.ndarray, "n ..."] | None
    damage: DamagedChunkError | None = None


@runtime_checkable
class RecordingReader(Closing, Protocol):
    """Random access to the committed frames of one recording.

    For one thread at a time, beside which others may have frames brought.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def commit(self) -> CommitRecord:
        """The commit record last read from disk."""
        ...

    def refresh(self) -> CommitRecord:
        """Read the commit record again, to see what a writer has added.

        In object storage a growing one counts as new for two seconds, and a complete one until its
        frames cannot be read.
        """
        ...

    def read(self, start: int, stop: int, *, masks: bool = False) -> Frames:
        """Frames start..stop, where commit.released <= start <= stop <= commit.length.

        They are fresh arrays, but images that are stored as they are may be a view of the file,
        which cannot be written. `masks` asks for the label maps where the recording has them.
        Raises IndexError outside the committed range, ReleasedError where frames were deleted, and
        DamagedChunkError where a chunk is missing or fails its checksum.
        """
        ...

    def bring(self, start: int, stop: int) -> None:
        """Have frames sent to this machine that are soon to be read, from a store far away.

        Raises IngestError and OSError, as reading them will.
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


@runtime_checkable
class RecordingWriter(Closing, Protocol):
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
        """Delete the pixels before frame `before`, as far as these are whole blocks."""
        ...

    def discard_empty(self) -> None:
        """Delete the recording if nothing is committed."""
        ...


@runtime_checkable
class Store(Protocol):
    """A store of recordings, each on its own."""

    @property
    def location(self) -> str:
        """Where the store is, as messages show it and as it is opened again."""
        ...

    @property
    def format(self) -> StoreFormat: ...  # noqa: D102

    @property
    def is_remote(self) -> bool:
        """Whether it is in object storage, where each request takes its time."""
        ...

    def recordings(self) -> list[str]:
        """Names of all recordings, sorted."""
        ...

    def uncommitted(self) -> list[str]:
        """Names of folders without a commit record that no process is writing.

        Their writer was killed before its first commit, or the record was lost.
        """
        ...

    def commit(self, name: str) -> CommitRecord:
        """The commit record of a recording, fresh from disk; NoSuchRecordingError without one."""
        ...

    def size_bytes(self, name: str) -> int:
        """What a recording takes on disk."""
        ...

    def leftovers(self, name: str) -> list[str]:
        """Files that a killed writer left half written; nothing in them counts."""
        ...

    def is_being_written(self, name: str) -> bool:
        """Whether a living process is adding to a recording."""
        ...

    def for_each(
        self, ask: Callable[[str], Answer], names: Iterable[str]
    ) -> Iterator[tuple[str, Future[Answer]]]:
        """Names, and what `ask` says of each or raises.

        On this machine it is asked in its turn; where the store is far away, threads ask about the
        next ones meanwhile.
        """
        ...

    def settle(self, name: str) -> None:
        """Let other programs see what counts of a recording whose writer was killed.

        Nothing is deleted, for its record may be damaged. Nothing happens where a process writes
        it, where this one may not write, or in object storage.
        """
        ...

    def reader(
        self, name: str, *, cache: ChunkCache | None = None, commit: CommitRecord | None = None
    ) -> RecordingReader:
        """Open a recording for reading.

        `cache` bounds the decoded chunks that all readers keep which share it; without one, the
        reader has its own of 64 MiB. Where its record is known as `commit`, it is not read again.
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
        codec: Codec = "zstd",
        overwrite: bool = False,
    ) -> RecordingWriter:
        """Begin a recording, or continue an unfinished one after its last committed frame.

        `max_chunk_length` bounds how long a live frame waits for its chunk. `overwrite` removes
        a recording of that name first. Raises RecordingExistsError where the stored recording has
        another source, settings or codec, RecordingLockedError where another process writes it.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete a recording from disk."""
        ...


@runtime_checkable
class ChunkFiles(Protocol):
    """The chunks of one recording, each guarded by a checksum.

    They hold no state of the recording: every call is given the commit record that it is about.
    `begin` comes before the first `write`, `release` or `trim`; reading needs none.
    """

    def pixels(
        self,
        field: Pixels,
        chunk: int,
        commit: CommitRecord,
        out: UInt8[np.ndarray, "n h w *c"] | None = None,
    ) -> UInt8[np.ndarray, "n h w *c"]:
        """Decode one chunk, up to the committed length; DamagedChunkError if it is not intact.

        A chunk that is full can be decoded into `out`. Several threads may do so at once.
        """
        ...

    def bring(self, field: Pixels, chunks: range, commit: CommitRecord) -> None:
        """Have neighbouring chunks sent here, unless they are here; raises as `pixels`."""
        ...

    def index(
        self, field: Index, start: int, stop: int, commit: CommitRecord
    ) -> Shaped[np.ndarray, " n"]:
        """Read one value per frame for frames start..stop."""
        ...

    def index_length(self, commit: CommitRecord) -> int:
        """For how many frames the values of an index are stored and checked together."""
        ...

    def block_length(self, commit: CommitRecord) -> int:
        """How many frames are written and committed together."""
        ...

    def begin(self, commit: CommitRecord) -> None:
        """Make ready for writing after the committed frames, of which there may be none."""
        ...

    def write(self, frames: Frames, start: int, commit: CommitRecord) -> None:
        """Put frames on disk from index `start` on; synced when it returns, in a durable store."""
        ...

    def release(self, start: int, stop: int, commit: CommitRecord) -> None:
        """Delete the pixels of frames start..stop, which are whole blocks, and keep their index."""
        ...

    def announce(self, commit: CommitRecord) -> None:
        """Say to programs that know nothing of commit records what has just been committed."""
        ...

    def is_settled(self, commit: CommitRecord) -> bool:
        """Whether `settle` has nothing to do."""
        ...

    def settle(self, commit: CommitRecord) -> None:
        """Say to other programs how many frames there are; nothing is deleted."""
        ...

    def trim(self, commit: CommitRecord) -> None:
        """Give up all room after the last frame: nothing is being written any more."""
        ...
