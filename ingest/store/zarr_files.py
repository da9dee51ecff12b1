"""A store of zarr arrays: chunks along time, a checksum in each.

While a recording grows, the shape of its arrays is capacity and never the truth. On completion the
arrays are trimmed, so that a plain `zarr.open(STORE)` then sees exactly what was recorded.

Chunks are read and written as files, not by way of zarr. To it, a chunk that it cannot find is one
of zeros, and one that was copied over another is as good: here each bears a mark of its place. And
it would sync their folder once for each.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped, UInt8
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.core.sync import sync
from zarr.storage import LocalStore

from ingest.disk.checksum import crc32c
from ingest.disk.durable import (
    clear_write_errors,
    remove_partial_files,
    write_whole,
    written_together,
)
from ingest.disk.threads import side_by_side
from ingest.errors import DamagedChunkError
from ingest.frame import Frames
from ingest.store.chunk_mark import check_mark, chunk_mark, marked
from ingest.store.codec import (
    CHUNK_BYTES,
    PixelCodec,
    decode_pixels,
    decode_values,
    encode_values,
    padded,
)
from ingest.store.directory import DirectoryStore
from ingest.store.layout import StoreLayout
from ingest.store.records import CommitRecord, Index, Pixels

_BLOCK_BYTES = 8 * CHUNK_BYTES  # several chunks at once: their compression and syncing overlap
_WRITERS = 4  # more than cores: they wait for the disk
_FIRST_CAPACITY = 4096
_INDEX_LENGTH = 4096  # a file per 16 frames of times would take seconds to open for an hour
_DAMAGE = (ValueError, RuntimeError, OSError, AttributeError, LookupError, TypeError)
"""What zarr raises on metadata and chunks that somebody changed."""
_CHAIN = [BytesCodec, BloscCodec, Crc32cCodec]
_SEPARATOR = "."  # one file for a chunk, no folders
_ARE_MARKED = "chunks_are_marked"
"""Attribute of the arrays whose chunks bear marks; stores made before have none."""
_INDEX_CODECS = [BloscCodec(typesize=8, cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]


class DurableStore(LocalStore):
    """A LocalStore whose writes are on disk when they return; zarr's own never syncs.

    Only what says how chunks are stored is written by it: a few files for a recording.
    """

    async def set(self, key: str, value: Buffer) -> None:  # noqa: D102
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:  # noqa: D102
        if not await self.exists(key):
            await self.set(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:  # noqa: D102
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, value.to_bytes())


class ZarrFiles:
    """The arrays of one recording: `frames`, `pts_ns`, `gap`, and `captured_ns`, `masks` if any."""

    def __init__(
        self,
        folder: Path,
        where: str,
        codec: PixelCodec = PixelCodec(),  # noqa: B008 - frozen
        *,
        durable: bool = True,
    ) -> None:
        self._folder = folder
        self._where = where
        self._codec = codec
        self._durable = durable
        self._commit: CommitRecord | None = None
        self._open: dict[str, zarr.Array[Any]] = {}

    def pixels(
        self,
        field: Pixels,
        chunk: int,
        commit: CommitRecord,
        out: UInt8[np.ndarray, "n h w *c"] | None = None,
    ) -> UInt8[np.ndarray, "n h w *c"]:
        """Decode one chunk, up to the committed length.

        The chunk's file is read as it lies there: by way of zarr it takes 0.5 to 1 ms more.
        """
        image = (commit.height, commit.width) + ((3,) if field == "frames" else ())
        shape = (commit.chunk_length, *image)
        first = chunk * commit.chunk_length
        count = min(commit.chunk_length, commit.length - first)
        try:
            self._check(field, shape, at_least=first + count)
            return decode_pixels(self._chunk(field, chunk, commit), shape, out)[:count]
        except _DAMAGE as error:
            raise self._damaged(field, chunk, _reason(error)) from error

    def index(
        self, field: Index, start: int, stop: int, commit: CommitRecord
    ) -> Shaped[np.ndarray, " n"]:
        """Read one value per frame."""
        chunks = range(start // _INDEX_LENGTH, -(-stop // _INDEX_LENGTH))
        pieces = [self._index_chunk(field, chunk, commit, at_least=stop) for chunk in chunks]
        values = np.concatenate([np.empty(0, _dtype(field)), *pieces])
        skip = chunks.start * _INDEX_LENGTH
        return values[start - skip : stop - skip]

    def index_length(self, commit: CommitRecord) -> int:
        """The same for all: times are small."""
        return _INDEX_LENGTH

    def block_length(self, commit: CommitRecord) -> int:
        """Several chunks for a file, one for a live source, which shall not wait."""
        chunk_bytes = commit.chunk_length * commit.height * commit.width * 3
        chunks = 1 if commit.live else max(1, min(8, _BLOCK_BYTES // chunk_bytes))
        return chunks * commit.chunk_length

    def begin(self, commit: CommitRecord) -> None:
        """Create the arrays, or clear away what a killed writer left half written."""
        self._commit = commit
        if commit.length or (self._folder / "zarr.json").exists():
            remove_partial_files(self._folder)
            return
        root = zarr.create_group(DurableStore(self._folder))
        image = (commit.height, commit.width)
        self._create(root, "frames", np.uint8, (commit.chunk_length, *image, 3))
        if commit.has_masks:
            self._create(root, "masks", np.uint8, (commit.chunk_length, *image))
        self._create(root, "pts_ns", np.int64, (_INDEX_LENGTH,))
        self._create(root, "gap", np.bool_, (_INDEX_LENGTH,))
        if commit.live:
            self._create(root, "captured_ns", np.int64, (_INDEX_LENGTH,))

    def write(self, frames: Frames, start: int) -> None:
        """Put frames on disk; the chunk of an index that is not full is replaced in one step."""
        assert self._commit is not None  # begin() comes first
        self._write_pixels("frames", frames.images, start, self._commit)
        if frames.masks is not None:
            self._write_pixels("masks", frames.masks, start, self._commit)
        self._write_index("pts_ns", frames.pts_ns, start, self._commit)
        self._write_index("gap", frames.gap, start, self._commit)
        if frames.captured_ns is not None:
            self._write_index("captured_ns", frames.captured_ns, start, self._commit)

    def release(self, start: int, stop: int) -> None:
        """Delete chunks; to zarr itself they are black from then on."""
        assert self._commit is not None
        fields: list[Pixels] = ["frames", *(["masks"] if self._commit.has_masks else [])]
        first, behind = start // self._commit.chunk_length, stop // self._commit.chunk_length
        for field in fields:
            for chunk in range(behind - 1, -1, -1):
                path = self._chunk_path(field, chunk)
                if chunk < first and not path.exists():
                    break  # nothing was left by a writer that was killed here
                path.unlink(missing_ok=True)

    def trim(self, length: int) -> None:
        """Make every array exactly as long as the recording."""
        fields: list[Pixels | Index] = ["frames", "masks", "pts_ns", "gap", "captured_ns"]
        for field in fields:
            if (self._folder / field).exists():
                array = self._array(field, at_least=0)
                _resize(array, length)
                chunk = -(-length // array.chunks[0])
                while (path := self._chunk_path(field, chunk)).exists():
                    path.unlink()  # of a writer that was killed before its commit
                    chunk += 1

    def _create(
        self, root: zarr.Group, field: str, dtype: type[np.generic], chunks: tuple[int, ...]
    ) -> None:
        root.create_array(
            field,
            shape=(_FIRST_CAPACITY, *chunks[1:]),
            chunks=chunks,
            dtype=dtype,
            compressors=[self._blosc(), Crc32cCodec()] if len(chunks) > 1 else _INDEX_CODECS,
            fill_value=0,
            chunk_key_encoding={"name": "default", "separator": _SEPARATOR},
            dimension_names=("time", "y", "x", "rgb")[: len(chunks)],
            attributes={_ARE_MARKED: True},
        )

    def _write_pixels(
        self,
        field: Pixels,
        pixels: UInt8[np.ndarray, "n h w *c"],
        start: int,
        commit: CommitRecord,
    ) -> None:
        length = self._roomy(field, start + len(pixels)).chunks[0]

        def write_chunk(first: int) -> None:
            buffer = self._codec.encode(padded(pixels[first : first + length], length))
            self._put(write, field, (start + first) // length, buffer, commit)

        with written_together(self._folder / field, durable=self._durable) as write:
            side_by_side(write_chunk, range(0, len(pixels), length), workers=_WRITERS)

    def _write_index(
        self, field: Index, values: Shaped[np.ndarray, " n"], start: int, commit: CommitRecord
    ) -> None:
        self._roomy(field, start + len(values))
        chunk, skip = divmod(start, _INDEX_LENGTH)
        if skip:
            before = self._index_chunk(field, chunk, commit, at_least=start)[:skip]
            values = np.concatenate([before, values])
        with written_together(self._folder / field, durable=self._durable) as write:
            for first in range(0, len(values), _INDEX_LENGTH):
                piece = padded(values[first : first + _INDEX_LENGTH], _INDEX_LENGTH)
                number = chunk + first // _INDEX_LENGTH
                self._put(write, field, number, encode_values(piece), commit)

    def _put(
        self,
        write: Callable[[Path, bytes], None],
        field: Pixels | Index,
        chunk: int,
        buffer: bytes,
        commit: CommitRecord,
    ) -> None:
        """Write a chunk as zarr would, and with its mark."""
        if self._are_marked(field):
            buffer = marked(buffer, chunk_mark(commit, field, chunk))
        checksum = crc32c(buffer).to_bytes(4, "little")
        write(self._chunk_path(field, chunk), buffer + checksum)

    def _index_chunk(
        self, field: Index, chunk: int, commit: CommitRecord, *, at_least: int
    ) -> Shaped[np.ndarray, " n"]:
        """All values that are stored together, of which only the committed ones are any."""
        try:
            self._check(field, (_INDEX_LENGTH,), at_least=at_least)
            return decode_values(self._chunk(field, chunk, commit), _INDEX_LENGTH, _dtype(field))
        except _DAMAGE as error:
            raise self._damaged(field, chunk, _reason(error)) from error

    def _chunk(
        self, field: Pixels | Index, chunk: int, commit: CommitRecord
    ) -> UInt8[np.ndarray, " bytes"]:
        """The Blosc buffer of a chunk; ValueError if it is damaged, or that of another chunk."""
        data = _without_checksum(self._chunk_path(field, chunk))
        if self._are_marked(field):
            check_mark(data, chunk_mark(commit, field, chunk))
        return data

    def _are_marked(self, field: Pixels | Index) -> bool:
        return _ARE_MARKED in self._array(field, at_least=0).metadata.attributes

    def _roomy(self, field: Pixels | Index, stop: int) -> zarr.Array[Any]:
        """An array, enlarged where it has no room for `stop` frames."""
        array = self._array(field, at_least=0)
        if array.shape[0] < stop:
            capacity = max(stop, _FIRST_CAPACITY, 2 * array.shape[0])
            _resize(array, capacity)
        return array

    def _check(self, field: Pixels | Index, shape: tuple[int, ...], *, at_least: int) -> None:
        """Whether a field's chunks are the arrays of `shape`, stored as this program does."""
        array, dtype = self._array(field, at_least=at_least), _dtype(field)
        codecs = [type(codec) for codec in getattr(array.metadata, "codecs", ())]
        keys = getattr(array.metadata, "chunk_key_encoding", None)
        found = (array.chunks, array.dtype, codecs, getattr(keys, "separator", None))
        if found != (shape, dtype, _CHAIN, _SEPARATOR):
            raise ValueError(
                f"zarr.json: chunks {array.chunks} of {array.dtype} in files named with "
                f"{found[-1]!r}, {shape} of {dtype} with {_SEPARATOR!r} were committed together"
            )
        if array.shape[0] < at_least:
            raise ValueError(f"zarr.json: {array.shape[0]} frames, {at_least} were committed")

    def _array(self, field: str, *, at_least: int) -> zarr.Array[Any]:
        """Open an array once, and again when a writer has enlarged it."""
        array = self._open.get(field)
        if array is None or array.shape[0] < at_least:
            try:
                array = zarr.open_array(DurableStore(self._folder / field), mode="r+")
            except _DAMAGE as error:
                raise self._damaged(field, 0, f"zarr.json: {error!r}") from error
            self._open[field] = array
        return array

    def _blosc(self) -> BloscCodec:
        codec = self._codec
        return BloscCodec(
            typesize=1,
            cname=codec.name,
            clevel=codec.level,
            shuffle=codec.shuffle,
            blocksize=codec.block_bytes,
        )

    def _chunk_path(self, field: str, chunk: int) -> Path:
        inner = ".0.0.0" if field == "frames" else ".0.0" if field == "masks" else ""
        return self._folder / field / f"c.{chunk}{inner}"

    def _damaged(self, field: str, chunk: int, reason: str) -> DamagedChunkError:
        return DamagedChunkError(
            f"{self._where}: chunk {chunk} of `{field}` is damaged ({reason}); "
            "restore the file or ingest the recording again with --overwrite"
        )


def _resize(array: zarr.Array[Any], length: int) -> None:
    """Change the length; zarr's own way looks at each chunk that there is or might be."""
    shape = (length, *array.shape[1:])
    sync(array.async_array.resize(shape, delete_outside_chunks=False))


def _dtype(field: Pixels | Index) -> np.dtype:
    if field in ("frames", "masks"):
        return np.dtype(np.uint8)
    return np.dtype(np.bool_ if field == "gap" else np.int64)


def _reason(error: Exception) -> str:
    return "the chunk is missing" if isinstance(error, FileNotFoundError) else str(error)


def _without_checksum(path: Path) -> UInt8[np.ndarray, " n"]:
    """The bytes of a chunk; ValueError if they are not those that were written."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    chunk, stored = data[:-4], data[-4:].tobytes()
    computed = crc32c(chunk).to_bytes(4, "little")  # takes arrays, but no memoryview
    if computed != stored:
        raise ValueError(f"checksum {computed.hex()}, stored with {stored.hex()}")
    return chunk


def create_zarr_store(path: Path, *, durable: bool = True) -> DirectoryStore:
    """Make an empty store in a new or empty directory; NotAStoreError for anything else."""
    layout = StoreLayout.create(path, "zarr", durable=durable)
    with clear_write_errors(str(path)):
        zarr.create_group(DurableStore(path))
        zarr.create_group(DurableStore(path / "recordings"))
    return DirectoryStore(layout, ZarrFiles)
