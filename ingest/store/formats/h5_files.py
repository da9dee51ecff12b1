"""The chunks of a recording as HDF5 files: closed parts, each whole or absent.

    recordings/NAME/frames-00000.h5, frames-00001.h5, ...

A part is built in memory and put on disk in one step: a killed writer would leave an HDF5 file that
does not open, and here there is never an open one. Handles do not outlive a read, so that none
crosses a fork.

The HDF5 library decodes one chunk at a time, for all threads together. So chunks are compressed and
decoded without it: it says where in a part they are, and its own filters would do the same.

HDF5 reads files and nothing else, so this format needs blobs that are files of this machine.

What is in a part is held against two attributes, both of them in headers that HDF5 checks itself:

    /        origin    which frames of which recording they are, as JSON
    /FIELD   crc32c    of `frames` and `masks` one for each chunk, as it is in the file; of times
                       and gaps one for all values

The checksum of HDF5's own filter is there too, for other readers. It is 0 for zeros, so a chunk and
its checksum on sectors that read as zeros would pass. Parts of older programs have only that
one: they are read as before, and nothing else guards them.
"""

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import get_args

import h5py
import hdf5plugin
import msgspec
import numpy as np
from jaxtyping import Shaped, UInt8
from numcodecs.fletcher32 import Fletcher32

from ingest.disk.hdf5 import check_crc32c, dataset, intact_values, store_checksums, stored_checksums
from ingest.disk.threads import available_cores, side_by_side
from ingest.errors import DamagedChunkError, StoreError
from ingest.frame import Frames
from ingest.store.blobs import Blobs, LocalBlobs, delete_leftovers
from ingest.store.formats.codec import PixelCodec, copy_pixels, decode_pixels, padded, stored_bytes
from ingest.store.protocols import DTYPES
from ingest.store.records import CommitRecord, Index, Pixels, RecordSettings, Source

_PART_CHUNKS = 16
_VERSIONS = ("v110", "v110")
"""The oldest and newest forms that HDF5 may write: those that 1.10 knows, as in Debian 12."""
_FILTERS = [32001, h5py.h5z.FILTER_FLETCHER32]  # Blosc, and a checksum of what it gives
_FLETCHER_BYTES = 4
_ORIGIN = "origin"
_DAMAGE = (OSError, LookupError, RuntimeError, TypeError, ValueError, msgspec.DecodeError)
"""What HDF5 raises on a part that was changed, and decoding on an origin that is not one."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """Which frames of which recording are in a part."""

    start: int
    source: Source
    """Without its path: a source that moved is the same."""
    settings: RecordSettings

    @classmethod
    def of(cls, commit: CommitRecord, start: int) -> "_Origin":
        """What must be in the part that begins with frame `start`."""
        return cls(start, replace(commit.source, path=""), commit.settings)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a chunk is, in bytes."""

    offset: int
    size: int
    """With the checksum of HDF5's filter."""
    compressed: bool
    """False where HDF5 found that compression would not make it smaller."""
    crc32c: int | None
    """CRC of all its bytes; None in a part of an older program, which wrote none."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the chunks of a part's field are in its file."""

    identity: tuple[int, int, int]
    length: int
    chunk_length: int
    chunks: tuple[_Place, ...]


class H5Files:
    """The parts of one recording, each with `frames`, `pts_ns`, `gap` and what else there is."""

    def __init__(
        self,
        blobs: Blobs,
        where: str,
        codec: PixelCodec | None = None,
    ) -> None:
        """`codec` is written with in place of that of the commit record."""
        if not isinstance(blobs, LocalBlobs):
            raise StoreError(f"{where}: HDF5 needs a folder of this machine; use --format zarr")
        self._blobs = blobs
        self._where = where
        self._codec = codec
        self._places: dict[tuple[int, Pixels], _Places] = {}

    def pixels(
        self,
        field: Pixels,
        chunk: int,
        commit: CommitRecord,
        out: UInt8[np.ndarray, "n h w *c"] | None = None,
    ) -> UInt8[np.ndarray, "n h w *c"]:
        """Decode one chunk, up to the committed length."""
        part, first = divmod(chunk * commit.chunk_length, self.block_length(commit))
        image = (commit.height, commit.width) + ((3,) if field == "frames" else ())
        with self._naming_damage(part, field), self._blobs.open(_part_name(part)) as file:
            places = self._places_in(part, field, commit, os.fstat(file.fileno()))
            length = places.chunk_length
            # a part that is shorter than a chunk has one chunk of its own length
            if length != min(commit.chunk_length, places.length) or first % length:
                raise ValueError(f"chunks of {length} frames, not {commit.chunk_length}")
            place = places.chunks[first // length]
            if place.size > stored_bytes(length * math.prod(image)):
                raise ValueError(f"a chunk of {place.size} bytes for {length} frames")
            file.seek(place.offset)
            data = _intact(file.read(place.size), place.crc32c)
            decode = decode_pixels if place.compressed else copy_pixels
            return decode(data, (length, *image), out)[: places.length - first]

    def bring(self, field: Pixels, chunks: range, commit: CommitRecord) -> None:
        """Nothing: h5 files are always here."""

    def index(
        self, field: Index, start: int, stop: int, commit: CommitRecord
    ) -> Shaped[np.ndarray, " n"]:
        """Read one value per frame."""
        dtype = DTYPES[field]
        length = self.block_length(commit)
        pieces = [np.empty(0, dtype)]
        for part in range(start // length, -(-stop // length)):
            first = part * length
            with self._naming_damage(part, field), self._part(part, commit) as file:
                values = intact_values(dataset(file, field), dtype, longest=length)
            pieces.append(values[max(start - first, 0) : stop - first])
        return np.concatenate(pieces)

    def index_length(self, commit: CommitRecord) -> int:
        """Each part has its own."""
        return self.block_length(commit)

    def block_length(self, commit: CommitRecord) -> int:
        """A part is written whole: large enough that an hour makes hundreds, not thousands."""
        return _PART_CHUNKS * commit.chunk_length

    def begin(self, commit: CommitRecord) -> None:
        """Make the folder, or clear away what a killed writer left half written."""
        self._blobs.make_folder("")
        delete_leftovers(self._blobs)

    def write(self, frames: Frames, start: int, commit: CommitRecord) -> None:
        """Put one part on disk."""
        part, rest = divmod(start, self.block_length(commit))
        assert rest == 0
        with self._new_part(part, commit) as file:
            self._fill_pixels(file, frames, commit)
            self._fill_index(file, frames)

    def release(self, start: int, stop: int, commit: CommitRecord) -> None:
        """Put parts in the place of others that have times and gaps only."""
        length = self.block_length(commit)
        for part in range(start // length, stop // length):
            with self._part(part, commit) as old, self._new_part(part, commit) as new:
                for field in get_args(Index):
                    if field in old:
                        old.copy(dataset(old, field), new)

    def announce(self, commit: CommitRecord) -> None:
        """Parts are closed: each holds what counts, and nothing else."""

    def is_settled(self, commit: CommitRecord) -> bool:
        """Always: a part after the last frame is left to the next writer."""
        return True

    def settle(self, commit: CommitRecord) -> None:
        """Nothing: only deleting a part would change what other programs see."""

    def trim(self, commit: CommitRecord) -> None:
        """Delete the part of a writer that was killed before its commit, if it was the last."""
        part = -(-commit.length // self.block_length(commit))
        while self._blobs.delete(_part_name(part)):
            part += 1

    @contextmanager
    def _new_part(self, part: int, commit: CommitRecord) -> Iterator[h5py.File]:
        """A part to fill, which is then put on disk in one step."""
        image = io.BytesIO()
        origin = msgspec.json.encode(_Origin.of(commit, part * self.block_length(commit)))
        with h5py.File(image, "w", libver=_VERSIONS) as file:
            file.attrs[_ORIGIN] = np.bytes_(origin)  # of fixed length: it is in the header
            yield file
        self._blobs.put(_part_name(part), image.getvalue())

    def _fill_pixels(self, file: h5py.File, frames: Frames, commit: CommitRecord) -> None:
        chunk_length = min(commit.chunk_length, len(frames))
        found: dict[Pixels, np.ndarray | None] = {"frames": frames.images, "masks": frames.masks}
        for field, pixels in found.items():
            if pixels is not None:
                codec = self._codec or PixelCodec.of(commit, field)
                self._fill_field(file, field, pixels, chunk_length, codec)

    def _fill_index(self, file: h5py.File, frames: Frames) -> None:
        for field in ("pts_ns", "gap", "captured_ns"):
            values = getattr(frames, field)
            if values is not None:
                data = file.create_dataset(field, data=values, chunks=True, fletcher32=True)
                store_checksums(data, [values.tobytes()])

    def _fill_field(
        self,
        file: h5py.File,
        field: Pixels,
        pixels: UInt8[np.ndarray, "n h w *c"],
        chunk_length: int,
        codec: PixelCodec,
    ) -> None:
        data = file.create_dataset(
            field,
            shape=pixels.shape,
            dtype=np.uint8,
            chunks=(chunk_length, *pixels.shape[1:]),
            fletcher32=True,
            **hdf5plugin.Blosc(cname=codec.name, clevel=codec.level),
        )
        starts = range(0, len(pixels), chunk_length)
        encoded: dict[int, bytes] = {}

        def encode(start: int) -> None:
            whole = padded(pixels[start : start + chunk_length], chunk_length)
            encoded[start] = bytes(Fletcher32().encode(codec.encode(whole)))

        side_by_side(encode, starts, workers=available_cores())
        for start in starts:
            data.id.write_direct_chunk((start, *[0] * (pixels.ndim - 1)), encoded[start])
        store_checksums(data, [encoded[start] for start in starts])

    def _places_in(
        self, part: int, field: Pixels, commit: CommitRecord, file: os.stat_result
    ) -> _Places:
        """Where the chunks of a part are, looked up once for as long as the file is the same."""
        identity = (file.st_ino, file.st_mtime_ns, file.st_size)
        known = self._places.get((part, field))
        if known is None or known.identity != identity:
            with self._part(part, commit) as opened:
                known = _places(dataset(opened, field), identity)
            self._places[part, field] = known
        return known

    @contextmanager
    def _part(self, part: int, commit: CommitRecord) -> Iterator[h5py.File]:
        """A part, opened; ValueError where it is another one."""
        # HDF5 opens files by name only: this one is that of the file which was found to be plain
        with (
            self._blobs.open(_part_name(part)) as found,
            h5py.File(f"/proc/self/fd/{found.fileno()}", "r") as file,
        ):
            _check_origin(file, _Origin.of(commit, part * self.block_length(commit)))
            yield file

    @contextmanager
    def _naming_damage(self, part: int, field: str) -> Iterator[None]:
        """Turn anything that a changed part raises into one clear error."""
        try:
            yield
        except _DAMAGE as error:
            reason = " ".join(str(error).split())  # HDF5 breaks lines
            raise DamagedChunkError(
                f"{self._where}: part {_part_name(part)} is damaged, reading `{field}` "
                f"({reason}); restore the file or ingest the recording again with --overwrite"
            ) from error


def _part_name(part: int) -> str:
    return f"frames-{part:05d}.h5"


def _places(data: h5py.Dataset, identity: tuple[int, int, int]) -> _Places:
    """Look up all chunks; ValueError where they are not stored as this program does."""
    filters = data.id.get_create_plist()
    chain = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
    if data.dtype != np.uint8 or data.chunks is None or chain != _FILTERS:
        raise ValueError(f"{data.dtype} in chunks of {data.chunks} through filters {chain}")
    found = [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]
    found.sort(key=lambda chunk: chunk.chunk_offset)
    # the mask has a bit for each filter that was left out, the first of them in its lowest bit
    if len(found) != -(-len(data) // data.chunks[0]) or any(c.filter_mask > 1 for c in found):
        raise ValueError(f"{len(found)} checked chunks for {len(data)} frames")
    checksums = stored_checksums(data, len(found))
    places = (
        _Place(chunk.byte_offset, chunk.size, compressed=not chunk.filter_mask, crc32c=crc32c)
        for chunk, crc32c in zip(found, checksums, strict=True)
    )
    return _Places(identity, len(data), data.chunks[0], tuple(places))


def _check_origin(file: h5py.File, expected: _Origin) -> None:
    """ValueError where other frames are in a part; one written before does not say."""
    if _ORIGIN not in file.attrs:
        return
    found = msgspec.json.decode(np.asarray(file.attrs[_ORIGIN]).tobytes(), type=_Origin)
    if found != expected:
        differences = ", ".join(
            f"{field} {getattr(found, field)}, not {getattr(expected, field)}"
            for field in _Origin.__dataclass_fields__
            if getattr(found, field) != getattr(expected, field)
        )
        raise ValueError(f"it is another: {differences}")


def _intact(data: bytes, crc32c: int | None) -> UInt8[np.ndarray, " n"]:
    """The bytes of a chunk without those of HDF5's checksum.

    ValueError or RuntimeError if they are not those that were written.
    """
    if crc32c is None:
        return np.frombuffer(Fletcher32().decode(data), np.uint8)
    check_crc32c(data, crc32c)
    return np.frombuffer(data, np.uint8)[:-_FLETCHER_BYTES]
