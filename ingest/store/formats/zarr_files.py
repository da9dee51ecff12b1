"""The chunks of a recording as zarr arrays: chunks along time, a checksum in each.

While a recording grows, the shape of its arrays is capacity and never the truth. On completion the
arrays are trimmed, so that a plain `zarr.open(STORE)` then sees exactly what was recorded.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import numpy as np
from jaxtyping import Shaped, UInt8

from ingest.disk.threads import in_order, side_by_side
from ingest.errors import DamagedChunkError
from ingest.frame import Frames
from ingest.store.blobs import Blobs, delete_leftovers
from ingest.store.formats.codec import (
    CHUNK_BYTES,
    PixelCodec,
    decode_pixels,
    decode_values,
    encode_values,
    padded,
)
from ingest.store.formats.shards import SHARD_CHUNKS, packed
from ingest.store.formats.zarr_array import (
    FIRST_CAPACITY,
    GROUP,
    INDEX_LENGTH,
    ZarrArray,
    create_arrays,
    fields_of,
)
from ingest.store.protocols import DTYPES
from ingest.store.records import CommitRecord, Index, Pixels

_BLOCK_BYTES = 8 * CHUNK_BYTES  # several chunks at once: their compression and syncing overlap
_WRITERS = 4  # more than cores: they wait for the disk
_READERS = 8  # these wait for an object store
_DAMAGE = (ValueError, RuntimeError, OSError)
"""What reading and decoding raise on chunks that were changed."""


class ZarrFiles:
    """The arrays of one recording: `frames`, `pts_ns`, `gap`, and `captured_ns`, `masks` if any."""

    def __init__(
        self,
        blobs: Blobs,
        where: str,
        codec: PixelCodec | None = None,
        *,
        are_sharded: bool = False,
    ) -> None:
        """New ones put many chunks into one blob if they `are_sharded`.

        `codec` is written with in place of that of the commit record.
        """
        self._blobs = blobs
        self._where = where
        self._codec = codec
        self._are_sharded = are_sharded
        self._open: dict[Pixels | Index, ZarrArray] = {}
        self._opening: dict[Pixels | Index, threading.Lock] = {
            field: threading.Lock() for field in (*get_args(Pixels), *get_args(Index))
        }

    def pixels(
        self,
        field: Pixels,
        chunk: int,
        commit: CommitRecord,
        out: UInt8[np.ndarray, "n h w *c"] | None = None,
    ) -> UInt8[np.ndarray, "n h w *c"]:
        """Decode one chunk, up to the committed length."""
        first = chunk * commit.chunk_length
        count = min(commit.chunk_length, commit.length - first)
        with self._naming_damage(field, chunk):
            array = self._array(field, commit, at_least=first + count)
            return decode_pixels(array.read(chunk, commit), array.chunk_shape, out)[:count]

    def index(
        self, field: Index, start: int, stop: int, commit: CommitRecord
    ) -> Shaped[np.ndarray, " n"]:
        """Read one value per frame."""
        chunks = range(start // INDEX_LENGTH, -(-stop // INDEX_LENGTH))

        def read(chunk: int) -> Shaped[np.ndarray, " n"]:
            return self._index_chunk(field, chunk, commit, at_least=stop)

        workers = min(_READERS, len(chunks)) if self._blobs.is_remote else 1
        pieces = in_order(read, chunks, workers=workers)
        values = np.concatenate([np.empty(0, DTYPES[field]), *(each.result() for each in pieces)])
        skip = chunks.start * INDEX_LENGTH
        return values[start - skip : stop - skip]

    def index_length(self, commit: CommitRecord) -> int:
        """The same for all: times are small."""
        return INDEX_LENGTH

    def bring(self, field: Pixels, chunks: range, commit: CommitRecord) -> None:
        """Bring chunks here, which those that lie in shards may not be."""
        with self._naming_damage(field, chunks.start):
            array = self._array(field, commit)
            if array.shards is not None:
                array.shards.bring(chunks)

    def block_length(self, commit: CommitRecord) -> int:
        """A shard, or some chunks; one chunk of a live source, which must not wait."""
        if self._are_sharded:
            return SHARD_CHUNKS * commit.chunk_length
        chunk_bytes = commit.chunk_length * commit.height * commit.width * 3
        chunks = 1 if commit.live else max(1, min(8, _BLOCK_BYTES // chunk_bytes))
        return chunks * commit.chunk_length

    def begin(self, commit: CommitRecord) -> None:
        """Create the arrays, or clear away what a killed writer left half written."""
        is_begun = not self._are_sharded and self._blobs.exists(GROUP)  # else the record is first
        if commit.length or is_begun:
            delete_leftovers(self._blobs)
        else:
            create_arrays(self._blobs, commit, self._codec_of, are_sharded=self._are_sharded)

    def write(self, frames: Frames, start: int, commit: CommitRecord) -> None:
        """Put frames on disk; the chunk of an index that is not full is replaced in one step."""
        self._write_pixels("frames", frames.images, start, commit)
        if frames.masks is not None:
            self._write_pixels("masks", frames.masks, start, commit)
        self._write_index("pts_ns", frames.pts_ns, start, commit)
        self._write_index("gap", frames.gap, start, commit)
        if frames.captured_ns is not None:
            self._write_index("captured_ns", frames.captured_ns, start, commit)

    def release(self, start: int, stop: int, commit: CommitRecord) -> None:
        """Delete chunks, and earlier ones that a writer left which was killed here."""
        first, end = start // commit.chunk_length, stop // commit.chunk_length
        pixels: list[Pixels] = ["frames", *(["masks"] if commit.has_masks else [])]
        for field in pixels:
            array = self._array(field, commit)
            for chunk in range(end - 1, -1, -1):
                if not array.delete(chunk) and chunk < first:
                    break

    def announce(self, commit: CommitRecord) -> None:
        """Say how many frames of a camera count: others do not look at the commit record."""
        if commit.live and not commit.complete:
            self._array("frames", commit).announce(commit.length)

    def is_settled(self, commit: CommitRecord) -> bool:
        """Whether every array is exactly as long as the recording."""
        return all(
            self._array(field, commit).length == commit.length for field in fields_of(commit)
        )

    def settle(self, commit: CommitRecord) -> None:
        """Make every array exactly as long as the recording."""
        for field in fields_of(commit):
            array = self._array(field, commit)
            array.announce(None)
            array.resize(commit.length)

    def trim(self, commit: CommitRecord) -> None:
        """Settle, and delete the chunks after the last frame."""
        self.settle(commit)
        if self._are_sharded:
            return  # there, a writer that continued later may have put them
        for field in fields_of(commit):
            array = self._array(field, commit)
            chunk = -(-commit.length // array.chunk_shape[0])
            while array.delete(chunk):  # of a writer that was killed before its commit
                chunk += 1

    def _write_pixels(
        self,
        field: Pixels,
        pixels: UInt8[np.ndarray, "n h w *c"],
        start: int,
        commit: CommitRecord,
    ) -> None:
        array, length = self._roomy(field, start + len(pixels), commit), commit.chunk_length
        codec = self._codec_of(commit, field)
        if self._are_sharded:
            return self._write_shard(array, pixels, start // length, commit, codec)

        def write_chunk(first: int) -> None:
            buffer = codec.encode(padded(pixels[first : first + length], length))
            array.put(put, (start + first) // length, buffer, commit)

        with array.putting() as put:
            side_by_side(write_chunk, range(0, len(pixels), length), workers=_WRITERS)

    def _write_shard(
        self,
        array: ZarrArray,
        pixels: UInt8[np.ndarray, "n h w *c"],
        begin: int,
        commit: CommitRecord,
        codec: PixelCodec,
    ) -> None:
        """Put chunks from `begin` on, which fill a shard or are the last."""
        length = commit.chunk_length
        chunks: list[bytes | None] = [None] * -(-len(pixels) // length)

        def encode(number: int) -> None:
            part = pixels[number * length : (number + 1) * length]
            buffer = codec.encode(padded(part, length))
            chunks[number] = array.stored(begin + number, buffer, commit)

        side_by_side(encode, range(len(chunks)), workers=_WRITERS)
        assert array.shards is not None
        with array.putting() as put:
            put(array.shards.blob(begin // SHARD_CHUNKS), packed(chunks))

    def _write_index(
        self, field: Index, values: Shaped[np.ndarray, " n"], start: int, commit: CommitRecord
    ) -> None:
        array = self._roomy(field, start + len(values), commit)
        chunk, skip = divmod(start, INDEX_LENGTH)
        if skip:
            before = self._index_chunk(field, chunk, commit, at_least=start)[:skip]
            values = np.concatenate([before, values])
        with array.putting() as put:
            for first in range(0, len(values), INDEX_LENGTH):
                piece = padded(values[first : first + INDEX_LENGTH], INDEX_LENGTH)
                array.put(put, chunk + first // INDEX_LENGTH, encode_values(piece), commit)

    def _index_chunk(
        self, field: Index, chunk: int, commit: CommitRecord, *, at_least: int
    ) -> Shaped[np.ndarray, " n"]:
        """All values that are stored together; those after the committed ones mean nothing."""
        with self._naming_damage(field, chunk):
            array = self._array(field, commit, at_least=at_least)
            return decode_values(array.read(chunk, commit), INDEX_LENGTH, DTYPES[field])

    def _codec_of(self, commit: CommitRecord, field: Pixels) -> PixelCodec:
        return self._codec or PixelCodec.of(commit, field)

    def _roomy(self, field: Pixels | Index, stop: int, commit: CommitRecord) -> ZarrArray:
        """An array, enlarged where it has no room for `stop` frames."""
        array = self._array(field, commit)
        if array.length < stop:
            array.resize(max(stop, FIRST_CAPACITY, 2 * array.length))
        return array

    def _array(
        self, field: Pixels | Index, commit: CommitRecord, *, at_least: int = 0
    ) -> ZarrArray:
        """Open an array once, and again when a writer has enlarged it."""
        known = self._open.get(field)
        if known is not None and known.length >= at_least:
            return known
        with self._opening[field]:  # several threads read ahead, and each would ask for it
            array = self._open.get(field)
            if array is None or array.length < at_least:
                with self._naming_damage(field, 0):
                    array = ZarrArray.open(self._blobs, field, commit)
                self._open[field] = array
        if array.length < at_least:
            raise ValueError(f"zarr.json: {array.length} frames, {at_least} were committed")
        return array

    @contextmanager
    def _naming_damage(self, field: Pixels | Index, chunk: int) -> Iterator[None]:
        """Turn anything that a changed chunk raises into one clear error."""
        try:
            yield
        except _DAMAGE as error:
            missing = isinstance(error, FileNotFoundError)
            reason = "the chunk is missing" if missing else str(error)
            raise DamagedChunkError(
                f"{self._where}: chunk {chunk} of `{field}` is damaged ({reason}); "
                "restore the file or ingest the recording again with --overwrite"
            ) from error
