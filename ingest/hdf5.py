"""Reading HDF5 files with their types checked, and with checksums that also notice zeros."""

from collections.abc import Sequence

import google_crc32c
import h5py
import numpy as np
from jaxtyping import Shaped

_CHECKSUMS = "crc32c"


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset of a group; KeyError where there is none, or something else of that name."""
    found = group[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"{name!r} is not a dataset")
    return found


def store_checksums(data: h5py.Dataset, pieces: Sequence[bytes]) -> None:
    """Keep the CRC-32C of each piece of a dataset in its header."""
    checksums = [google_crc32c.value(piece) for piece in pieces]
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
    computed = google_crc32c.value(data)
    if computed != stored:
        raise ValueError(f"checksum {computed:08x}, stored with {stored:08x}")


def intact_values(data: h5py.Dataset, dtype: np.dtype) -> Shaped[np.ndarray, "n ..."]:
    """All values of a dataset that is one piece; ValueError if they are not as written."""
    if data.dtype != dtype:
        raise ValueError(f"values of {data.dtype}, not {dtype}")
    values = data[:]
    (crc32c,) = stored_checksums(data, 1)
    if crc32c is not None:
        check_crc32c(values.tobytes(), crc32c)
    return values
