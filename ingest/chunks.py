"""What a storage format provides: frames of one recording kept in chunks along time.

    frame   0 ........ 15 | 16 ....... 31 | 32 ....... 47 | 48 ..
    chunk        0        |       1       |       2       |   3 (only the last may be short)
    block   whole chunks that are written and committed together

Everything else (caching, commits, locks) is the same for all formats and lives in `chunk_reader`,
`chunk_writer` and `directory_store`.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped, UInt8

from ingest.frame import Frames
from ingest.store import CommitRecord, Index, Pixels

CHUNK_BYTES = 1 << 20
"""Raw size a chunk should have: little to read for one clip, enough to compress."""


@runtime_checkable
class ChunkFiles(Protocol):
    """The files of one recording. Reading needs no `begin`; a checksum guards every chunk."""

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
        """Make ready for writing behind the committed frames, of which there may be none."""
        ...

    def write(self, frames: Frames, start: int) -> None:
        """Put frames on disk from index `start` on; synced when it returns, in a durable store."""
        ...

    def release(self, start: int, stop: int) -> None:
        """Delete the pixels of frames start..stop, which are whole blocks, and keep their index."""
        ...

    def trim(self, length: int) -> None:
        """Give up all room behind the last frame: the recording is complete."""
        ...


def chunk_length(height: int, width: int, longest: int | None) -> int:
    """Frames per chunk: a power of two of about CHUNK_BYTES, 1 to 64, and at most `longest`."""
    fitting = max(1, min(64, CHUNK_BYTES // (height * width * 3)))
    power = 1 << (fitting.bit_length() - 1)
    return power if longest is None else max(1, min(power, longest))
