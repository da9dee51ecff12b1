"""Decoded chunks that may be needed again, of one reader or several."""

import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8


class ChunkKey(NamedTuple):
    """Which chunk, and for whom it was decoded: a recording may be replaced by another."""

    owner: int
    field: str
    chunk: int


class ChunkCache:
    """The most recently used chunks, as long as they fit into `max_bytes`; the newest always.

    Several threads may use it at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._owners = 0
        self._chunks: OrderedDict[ChunkKey, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Size of the chunks it holds."""
        return self._bytes

    def new_owner(self) -> int:
        """A number for the keys of one more reader."""
        with self._lock:
            self._owners += 1
            return self._owners

    def __contains__(self, key: ChunkKey) -> bool:
        return key in self._chunks

    def get(self, key: ChunkKey) -> UInt8[np.ndarray, "n h w *c"] | None:
        """The chunk, which becomes the most recently used, or None."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def put(self, key: ChunkKey, chunk: UInt8[np.ndarray, "n h w *c"]) -> None:
        """Keep a chunk, and drop the ones unused for longest."""
        with self._lock:
            self._drop(key)
            self._chunks[key] = chunk
            self._bytes += chunk.nbytes
            while self._bytes > self._max_bytes and len(self._chunks) > 1:
                self._drop(next(iter(self._chunks)))

    def forget(self, owner: int) -> None:
        """Drop all chunks of one reader."""
        with self._lock:
            for key in [key for key in self._chunks if key.owner == owner]:
                self._drop(key)

    def _drop(self, key: ChunkKey) -> None:
        old = self._chunks.pop(key, None)
        self._bytes -= 0 if old is None else old.nbytes
