"""HDF5 files: read with their types checked and checksums that also notice zeros, and written
without harm where the disk is full."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped

from ingest.disk.checksum import crc32c
from ingest.disk.signals import uninterrupted

_CHECKSUMS = "crc32c"


class NewFile:
    """An HDF5 file to fill, which may meet a full disk.

    HDF5 cannot abandon a file that it failed to write, and crashes the program when that exits. So
    here a write that fails is noted, and HDF5 is made to believe that it succeeded.
    """

    def __init__(self, path: Path) -> None:
        self._disk = _Disk(path)
        with uninterrupted():
            self._file = h5py.File(self._disk, "w")

    @contextmanager
    def filling(self) -> Iterator[h5py.File]:
        """The file, to write to; raises the OSError of a write that failed.

        Signals wait meanwhile, for HDF5 calls Python back: see `ingest.disk.signals`. Closing a
        dataset writes too, so a dataset that is not kept until the file is closed goes in here.
        """
        with uninterrupted():
            yield self._file
        self._check()

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with uninterrupted():
            self._file.close()
            self._disk.close()
        if kind is None:
            self._check()

    def _check(self) -> None:
        if self._disk.error is not None:
            raise self._disk.error


class _Disk:
    """A file that keeps its first error to itself, and from then on writes nothing."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None
        self.seek, self.tell = self._file.seek, self._file.tell
        self.read, self.readinto = self._file.read, self._file.readinto
        self.close = self._file.close

    def write(self, data: Any) -> int:  # anything with a buffer: h5py has a type of its own
        view, done = memoryview(data), 0
        try:
            while self.error is None and done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int) -> int:
        try:
            self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def flush(self) -> None:
        """Nothing is kept back."""


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset of a group, with its values in the same file.

    Raises KeyError where there is none, or something else of that name; ValueError where it leads
    out of the file, which may be one that somebody else made.
    """
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name!r} is a link to another place")
    found = group[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"{name!r} is not a dataset")
    if found.external is not None or found.is_virtual:
        raise ValueError(f"{name!r} has its values in other files")
    return found


def store_checksums(data: h5py.Dataset, pieces: Sequence[bytes]) -> None:
    """Keep the CRC-32C of each piece of a dataset in its header."""
    checksums = [crc32c(piece) for piece in pieces]
    data.attrs[_CHECKSUMS] = np.array(checksums, np.uint32)


def stored_checksums(data: h5py.Dataset, count: int) -> list[int | None]:
    """What `store_checksums` kept of `count` pieces; None for each where it kept nothing."""
    if _CHECKSUMS not in data.attrs:
        return [None] * count
    stored = np.asarray(data.attrs[_CHECKSUMS])
    if stored.shape != (count,):
        raise ValueError(f"checksums of shape {stored.shape}, not of {count} pieces")
    return [int(checksum) for checksum in stored]


def check_crc32c(data: bytes, stored: int) -> None:
    """ValueError where bytes are not those that the checksum was made of."""
    computed = crc32c(data)
    if computed != stored:
        raise ValueError(f"checksum {computed:08x}, stored with {stored:08x}")


def intact_values(data: h5py.Dataset, dtype: np.dtype, *, longest: int) -> Shaped[np.ndarray, " n"]:
    """All values of a dataset that is one piece; ValueError if they are not as written."""
    if data.ndim != 1 or len(data) > longest:
        raise ValueError(f"values of shape {data.shape}, up to {longest} belong here")
    if data.dtype != dtype:
        raise ValueError(f"values of {data.dtype}, not {dtype}")
    values = data[:]
    (stored,) = stored_checksums(data, 1)
    if stored is not None:
        check_crc32c(values.tobytes(), stored)
    return values
