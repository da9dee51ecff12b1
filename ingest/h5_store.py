"""A store of HDF5 files: closed parts, each whole or absent.

    recordings/NAME/frames-00000.h5, frames-00001.h5, ...

A part is built in memory and put on disk in one step: a killed writer would leave an HDF5 file that
does not open, and here there is never an open one. Handles do not outlive a read, so that none
crosses a fork.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from jaxtyping import Shaped, UInt8

from ingest.directory_store import DirectoryStore
from ingest.durable import remove_partial_files, write_durably
from ingest.errors import DamagedChunkError
from ingest.frame import Frames
from ingest.hdf5 import dataset
from ingest.layout import StoreLayout
from ingest.store import CommitRecord, Index, Pixels

_PART_CHUNKS = 16


class H5Files:
    """The parts of one recording, each with `frames`, `pts_ns`, `gap` and what else there is."""

    def __init__(self, folder: Path, where: str) -> None:
        self._folder = folder
        self._where = where
        self._commit: CommitRecord | None = None

    def pixels(
        self, field: Pixels, chunk: int, commit: CommitRecord
    ) -> UInt8[np.ndarray, "n h w *c"]:
        """Decode one chunk, up to the committed length."""
        part, first = divmod(chunk * commit.chunk_length, self.block_length(commit))
        with self._part(part, field) as file:
            return np.asarray(dataset(file, field)[first : first + commit.chunk_length])

    def index(
        self, field: Index, start: int, stop: int, commit: CommitRecord
    ) -> Shaped[np.ndarray, " n"]:
        """Read one value per frame."""
        length = self.block_length(commit)
        pieces = []
        for part in range(start // length, -(-stop // length)):
            first = part * length
            with self._part(part, field) as file:
                pieces.append(dataset(file, field)[max(start - first, 0) : stop - first])
        dtype = np.bool_ if field == "gap" else np.int64
        return np.concatenate([np.empty(0, dtype), *pieces])

    def index_length(self, commit: CommitRecord) -> int:
        """Each part has its own."""
        return self.block_length(commit)

    def block_length(self, commit: CommitRecord) -> int:
        """A part is written whole: large enough that an hour makes hundreds, not thousands."""
        return _PART_CHUNKS * commit.chunk_length

    def begin(self, commit: CommitRecord) -> None:
        """Make the folder, or clear away what a killed writer left half written."""
        self._commit = commit
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(self._folder)

    def write(self, frames: Frames, start: int) -> None:
        """Put one part on disk."""
        assert self._commit is not None  # begin() comes first
        part, rest = divmod(start, self.block_length(self._commit))
        assert rest == 0
        image = io.BytesIO()
        with h5py.File(image, "w", libver="v112") as file:
            self._fill(file, frames, self._commit.chunk_length)
        write_durably(self._path(part), image.getvalue())

    def trim(self, length: int) -> None:
        """Nothing to give up: parts are as long as what is in them."""

    def _fill(self, file: h5py.File, frames: Frames, chunk_length: int) -> None:
        chunk_length = min(chunk_length, len(frames))
        for field, pixels in (("frames", frames.images), ("masks", frames.masks)):
            if pixels is not None:
                file.create_dataset(
                    field,
                    data=pixels,
                    chunks=(chunk_length, *pixels.shape[1:]),
                    fletcher32=True,
                    **hdf5plugin.Blosc(cname="zstd", clevel=3, shuffle=hdf5plugin.Blosc.BITSHUFFLE),
                )
        file.create_dataset("pts_ns", data=frames.pts_ns, chunks=True, fletcher32=True)
        file.create_dataset("gap", data=frames.gap, chunks=True, fletcher32=True)
        if frames.captured_ns is not None:
            file.create_dataset(
                "captured_ns", data=frames.captured_ns, chunks=True, fletcher32=True
            )

    @contextmanager
    def _part(self, part: int, field: str) -> Iterator[h5py.File]:
        try:
            with h5py.File(self._path(part), "r") as file:
                yield file
        except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise DamagedChunkError(
                f"{self._where}: part {self._path(part).name} is damaged, reading `{field}` "
                f"({error}); restore the file or ingest the recording again with --overwrite"
            ) from error

    def _path(self, part: int) -> Path:
        return self._folder / f"frames-{part:05d}.h5"


def create_h5_store(path: Path) -> DirectoryStore:
    """Make an empty store in a new or empty directory; NotAStoreError for anything else."""
    return DirectoryStore(StoreLayout.create(path, "h5"), H5Files)
