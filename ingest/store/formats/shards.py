"""Many chunks of an array in one blob, as zarr's codec `sharding_indexed` lays them out.

    chunk 0 │ chunk 1 │ ... │ offset, length of each chunk: two 64-bit numbers │ CRC-32C of those
                              both are 2^64 - 1 for a chunk that is not there

A chunk is the same bytes as in a file of its own.
"""

import threading
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64

from ingest.disk.checksum import crc32c
from ingest.store.blobs import Blobs, Tail

SHARD_CHUNKS = 64
"""Chunks of a MiB: what one request writes, and the least that is committed."""
_ABSENT = np.uint64((1 << 64) - 1)
_NUMBER = np.dtype("<u8")
_CHECKSUM_BYTES = 4
_INDEX_BYTES = SHARD_CHUNKS * 2 * _NUMBER.itemsize + _CHECKSUM_BYTES


def packed(chunks: Sequence[bytes | None]) -> bytes:
    """One shard of up to `SHARD_CHUNKS` chunks; None for one that is not there."""
    index = np.full((SHARD_CHUNKS, 2), _ABSENT, _NUMBER)
    offset = 0
    for number, chunk in enumerate(chunks):
        if chunk is not None:
            index[number] = offset, len(chunk)
            offset += len(chunk)
    raw = index.tobytes()
    return b"".join([*filter(None, chunks), raw, crc32c(raw).to_bytes(_CHECKSUM_BYTES, "little")])


class Shards:
    """The shards of one array, to be read by several threads."""

    def __init__(self, blobs: Blobs, name: str, suffix: str, most_bytes: int) -> None:
        """Their names are `name`, a number and `suffix`; no chunk has more than `most_bytes`."""
        self._blobs = blobs
        self._name = name
        self._suffix = suffix
        self._most_bytes = most_bytes
        self._known: dict[int, _Shard] = {}
        self._lock = threading.Lock()

    def blob(self, shard: int) -> str:
        """The name of a shard."""
        return f"{self._name}{shard}{self._suffix}"

    def read(self, chunk: int, *, fresh: bool = False) -> bytes:
        """The bytes of a chunk; `fresh`, from where the shard is.

        Raises FileNotFoundError where there is none, ValueError where the index is damaged.
        """
        number, place = divmod(chunk, SHARD_CHUNKS)
        if fresh:
            self._known.pop(number, None)  # it may have been replaced
        shard = self._shard(number)
        start, stop = shard.range_of(place, self._most_bytes)
        return self._blobs.get_range(self.blob(number), start, stop, shard.tail, fresh=fresh)

    def bring(self, chunks: range) -> None:
        """Bring neighbouring chunks here."""
        for number in range(chunks.start // SHARD_CHUNKS, -(-chunks.stop // SHARD_CHUNKS)):
            shard, first = self._shard(number), number * SHARD_CHUNKS
            within = range(max(0, chunks.start - first), min(SHARD_CHUNKS, chunks.stop - first))
            ranges = [shard.range_of(place, self._most_bytes) for place in within]
            start, stop = min(start for start, _ in ranges), max(stop for _, stop in ranges)
            self._blobs.bring(self.blob(number), start, stop, shard.tail)

    def _shard(self, number: int) -> "_Shard":
        if (known := self._known.get(number)) is not None:
            return known  # without waiting for a thread that asks for another
        with self._lock:  # held while it is read: several threads want the same one
            shard = self._known.get(number)
            if shard is None:
                shard = _Shard(self._blobs.tail(self.blob(number), _INDEX_BYTES))
                self._known[number] = shard
            return shard


class _Shard:
    """The index of one shard; ValueError where it is damaged."""

    def __init__(self, tail: Tail) -> None:
        raw, stored = tail.data[:-_CHECKSUM_BYTES], tail.data[-_CHECKSUM_BYTES:]
        if len(tail.data) != _INDEX_BYTES or crc32c(raw).to_bytes(_CHECKSUM_BYTES, "little") != (
            stored
        ):
            raise ValueError(f"the index of a shard of {tail.size_bytes} bytes is damaged")
        self.tail = tail
        self._index: UInt64[np.ndarray, "chunks 2"] = np.frombuffer(raw, _NUMBER).reshape(-1, 2)

    def range_of(self, place: int, most_bytes: int) -> tuple[int, int]:
        """Where a chunk begins and ends."""
        offset, length = (int(number) for number in self._index[place])
        if offset == length == _ABSENT:
            raise FileNotFoundError(f"chunk {place} of a shard")
        if length > most_bytes or offset + length > self.tail.size_bytes - _INDEX_BYTES:
            raise ValueError(
                f"the index of a shard of {self.tail.size_bytes} bytes has a chunk of {length} "
                f"bytes at {offset}"
            )
        return offset, offset + length
