"""One zarr array of a recording: what `zarr.json` says of it, and its chunks.

    FIELD/zarr.json      shape, type, chunks and codecs, as zarr writes them
    FIELD/c.7.0.0.0      chunk 7: a Blosc buffer, with the mark of its place, and a CRC-32C;
                         in object storage shard 7, of 64 such chunks (see `shards`)

zarr describes the arrays, but does not read or write them. To zarr, a chunk that is missing is one
of zeros, and one that was copied over another is as good; here the first is damage, and so is the
second, which the mark shows (see `chunk_mark`). Reading a chunk by way of zarr takes
0.5 to 1 ms more, and its own files are not synced.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeGuard, get_args

import numpy as np
import zarr
from jaxtyping import UInt8
from zarr.abc.codec import Codec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.metadata.v3 import ArrayV3Metadata

from ingest.disk import inside
from ingest.disk.checksum import crc32c
from ingest.store.blobs import Blobs, Put
from ingest.store.formats.chunk_mark import check_mark, chunk_mark, marked
from ingest.store.formats.codec import PixelCodec, stored_bytes
from ingest.store.formats.shards import SHARD_CHUNKS, Shards
from ingest.store.protocols import DTYPES
from ingest.store.records import CommitRecord, Index, Pixels

INDEX_LENGTH = 4096
"""Frames per chunk of an index: a file per 16 times would take seconds to open for an hour."""
FIRST_CAPACITY = 4096
GROUP = _METADATA = "zarr.json"
_MAX_METADATA_BYTES = 1 << 20
_CHAIN = [BytesCodec, BloscCodec, Crc32cCodec]
_SEPARATOR = "."  # one file for a chunk, no folders
_ARE_MARKED = "chunks_are_marked"
"""Attribute of the arrays whose chunks bear marks; stores made before have none."""
_COMMITTED = "committed_length"
"""Attribute of the frames of a camera while they grow: how many of them count."""
_INDEX_CODECS = [BloscCodec(typesize=8, cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()]
_CHECKSUM_BYTES = 4
_UNREADABLE = (
    *(ValueError, RuntimeError, OSError, AttributeError, LookupError, TypeError),
    *(RecursionError, OverflowError),
)
"""What zarr raises on metadata that was changed."""


class ZarrArray:
    """The array of one field; several threads may read it at once."""

    def __init__(self, blobs: Blobs, field: Pixels | Index, metadata: ArrayV3Metadata) -> None:
        self._blobs = blobs
        self._field: Pixels | Index = field
        self._metadata = metadata
        self._are_marked = _ARE_MARKED in metadata.attributes
        self._suffix = ".0" * (len(metadata.shape) - 1)
        raw = math.prod(metadata.chunks) * metadata.dtype.to_native_dtype().itemsize
        self._most_bytes = stored_bytes(raw)
        self._shards = (
            Shards(blobs, f"{field}/c.", self._suffix, self._most_bytes)
            if metadata.shards is not None
            else None
        )

    @classmethod
    def open(cls, blobs: Blobs, field: Pixels | Index, commit: CommitRecord) -> "ZarrArray":
        """Read an array's metadata; ValueError where its chunks are not what `commit` says."""
        try:
            described = json.loads(
                blobs.get(f"{field}/{_METADATA}", most_bytes=_MAX_METADATA_BYTES)
            )
            metadata = ArrayV3Metadata.from_dict(described)
            _check_chunks(metadata, field, commit)
        except _UNREADABLE as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else repr(error)
            raise ValueError(f"{_METADATA} {what}") from error
        return cls(blobs, field, metadata)

    @property
    def length(self) -> int:
        """How many frames it has room for; never how many there are."""
        return self._metadata.shape[0]

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of every chunk, frames first."""
        return self._metadata.chunks

    @property
    def shards(self) -> Shards | None:
        """What its chunks lie in, if it is that."""
        return self._shards

    def resize(self, length: int) -> None:
        """Change the length. (zarr's own way looks at each chunk that there is or might be.)"""
        self._describe(self._metadata.update_shape((length, *self._metadata.shape[1:])))

    def announce(self, committed: int | None) -> None:
        """Say to other readers how many frames count; None where the length is their number."""
        others = {key: v for key, v in self._metadata.attributes.items() if key != _COMMITTED}
        said = {} if committed is None else {_COMMITTED: committed}
        self._metadata = self._metadata.update_attributes(others | said)
        if committed is not None:
            self._describe(self._metadata)

    def _describe(self, metadata: ArrayV3Metadata) -> None:
        described = metadata.to_buffer_dict(default_buffer_prototype())[_METADATA]
        self._blobs.put(f"{self._field}/{_METADATA}", described.to_bytes())
        self._metadata = metadata

    def read(self, chunk: int, commit: CommitRecord) -> UInt8[np.ndarray, " bytes"]:
        """The Blosc buffer of a chunk.

        Raises ValueError if it is damaged or belongs to another place, OSError without a file.
        """
        if self._shards is None:
            get = self._blobs.view if commit.codec == "none" else self._blobs.get
            data = get(self._name(chunk), most_bytes=self._most_bytes)
            return self._checked(data, chunk, commit)
        try:
            return self._checked(self._shards.read(chunk), chunk, commit)
        except (ValueError, OSError):  # what was kept of it here may be what is damaged
            return self._checked(self._shards.read(chunk, fresh=True), chunk, commit)

    def _checked(
        self, stored: inside.Buffer, chunk: int, commit: CommitRecord
    ) -> UInt8[np.ndarray, " bytes"]:
        data = np.frombuffer(stored, np.uint8)
        if len(data) < _CHECKSUM_BYTES:
            raise ValueError(f"{len(data)} bytes, shorter than its {_CHECKSUM_BYTES}-byte checksum")
        buffer, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:].tobytes()
        computed = _checksum(buffer)
        if computed != checksum:
            raise ValueError(f"checksum {computed.hex()}, stored with {checksum.hex()}")
        if self._are_marked:
            check_mark(buffer, chunk_mark(commit, self._field, chunk))
        return buffer

    def putting(self) -> AbstractContextManager[Put]:
        """A function for `put`: chunks that are written together are synced together."""
        return self._blobs.put_together(self._field)

    def put(self, put: Put, chunk: int, buffer: bytes, commit: CommitRecord) -> None:
        """Write the Blosc buffer of a chunk."""
        put(self._name(chunk), self.stored(chunk, buffer, commit))

    def stored(self, chunk: int, buffer: bytes, commit: CommitRecord) -> bytes:
        """The Blosc buffer of a chunk as zarr would write it, and with its mark."""
        if self._are_marked:
            buffer = marked(buffer, chunk_mark(commit, self._field, chunk))
        return buffer + _checksum(np.frombuffer(buffer, np.uint8))

    def delete(self, chunk: int) -> bool:
        """Delete a chunk, which is black to zarr from then on; returns whether there was one."""
        return self._blobs.delete(self._name(chunk))

    def _name(self, chunk: int) -> str:
        return f"{self._field}/c.{chunk}{self._suffix}"


def create_group(blobs: Blobs) -> None:
    """Let zarr see a folder as a group."""
    described: dict[str, Buffer] = {}
    zarr.create_group(described)
    _put_all(blobs, described)


def create_arrays(
    blobs: Blobs,
    commit: CommitRecord,
    codec_of: Callable[[CommitRecord, Pixels], PixelCodec],
    *,
    are_sharded: bool,
) -> None:
    """Describe the arrays of a new recording; no chunk is there yet."""
    described: dict[str, Buffer] = {}
    root = zarr.create_group(described)
    for field in fields_of(commit):
        chunks = chunk_shape(field, commit)
        root.create_array(
            field,
            shape=(FIRST_CAPACITY, *chunks[1:]),
            chunks=chunks,
            shards=_shard_shape(chunks) if are_sharded and _is_pixels(field) else None,
            dtype=DTYPES[field],
            compressors=(
                [_blosc(codec_of(commit, field)), Crc32cCodec()]
                if _is_pixels(field)
                else _INDEX_CODECS
            ),
            fill_value=0,
            chunk_key_encoding={"name": "default", "separator": _SEPARATOR},
            dimension_names=("time", "y", "x", "rgb")[: len(chunks)],
            attributes={_ARE_MARKED: True},
        )
    _put_all(blobs, described)


def fields_of(commit: CommitRecord) -> Iterator[Pixels | Index]:
    """The fields of a recording, pixels first."""
    yield "frames"
    if commit.has_masks:
        yield "masks"
    yield "pts_ns"
    yield "gap"
    if commit.live:
        yield "captured_ns"


def chunk_shape(field: Pixels | Index, commit: CommitRecord) -> tuple[int, ...]:
    """Shape of the chunks of a field, frames first."""
    if field in get_args(Index):
        return (INDEX_LENGTH,)
    return (commit.chunk_length, commit.height, commit.width, *((3,) if field == "frames" else ()))


def _is_pixels(field: Pixels | Index) -> TypeGuard[Pixels]:
    return field in get_args(Pixels)


def _shard_shape(chunks: tuple[int, ...]) -> tuple[int, ...]:
    return (SHARD_CHUNKS * chunks[0], *chunks[1:])


def _check_chunks(metadata: ArrayV3Metadata, field: Pixels | Index, commit: CommitRecord) -> None:
    """ValueError unless the chunks are of the committed shape, stored as this program does.

    They are decoded without zarr, so the metadata must ask for nothing else that zarr would do.
    """
    shape, dtype = chunk_shape(field, commit), DTYPES[field]
    chunks, found_dtype = metadata.chunks, metadata.dtype.to_native_dtype()
    separator = getattr(metadata.chunk_key_encoding, "separator", None)
    if metadata.shards is None:
        codecs, shards = metadata.codecs, None
    else:
        codecs, shards = _inner_codecs(metadata), _shard_shape(shape)
    chain = [type(codec) for codec in codecs]
    found = (chunks, metadata.shards, found_dtype, chain, separator)
    if found != (shape, shards, dtype, _CHAIN, _SEPARATOR):
        raise ValueError(
            f"chunks {chunks} of {found_dtype} in files named with {separator!r}, {shape} of "
            f"{dtype} with {_SEPARATOR!r} were committed together"
        )


def _inner_codecs(metadata: ArrayV3Metadata) -> Sequence[Codec]:
    """How the chunks in a shard are stored; none where the shard is not as `Shards` reads it."""
    (sharding,) = metadata.codecs
    assert isinstance(sharding, ShardingCodec)  # else it had no shards
    index = [type(codec) for codec in sharding.index_codecs]
    is_known = sharding.index_location.value == "end" and index == [BytesCodec, Crc32cCodec]
    return sharding.codecs if is_known else ()


def _put_all(blobs: Blobs, described: Mapping[str, Buffer]) -> None:
    """Put metadata, in folders that are made here."""
    for name, content in described.items():
        blobs.make_folder(name.rpartition("/")[0])
        blobs.put(name, content.to_bytes())


def _blosc(codec: PixelCodec) -> BloscCodec:
    return BloscCodec(
        typesize=1,
        cname=codec.name,
        clevel=codec.level,
        shuffle=codec.shuffle,
        blocksize=codec.block_bytes,
    )


def _checksum(buffer: UInt8[np.ndarray, " bytes"]) -> bytes:
    return crc32c(buffer).to_bytes(_CHECKSUM_BYTES, "little")
