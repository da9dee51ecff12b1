"""Random access to committed frames through a small cache of decoded chunks."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import get_args

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from ingest.closing import Closing
from ingest.disk.threads import available_cores, side_by_side
from ingest.errors import DamagedChunkError, ReleasedError
from ingest.frame import Frames
from ingest.store.cache import ChunkCache, ChunkKey
from ingest.store.index import ReadIndex
from ingest.store.layout import StoreLayout
from ingest.store.protocols import ChunkFiles, StoredChunk
from ingest.store.records import CommitRecord, Index, Pixels

_BYTES_PER_THREAD = 128 << 10
"""Smaller chunks are decoded before another thread has started."""


FRESH_SECONDS = 2.0
"""For so long a growing recording in object storage counts as it was read."""


class ChunkReader(Closing):
    """A RecordingReader over the chunks of any format."""

    def __init__(
        self,
        layout: StoreLayout,
        name: str,
        files: ChunkFiles,
        cache: ChunkCache,
        commit: CommitRecord | None,
    ) -> None:
        self._layout = layout
        self._name = name
        self._files = files
        self._stamp: tuple[int, ...] | None = None
        self._record: bytes | None = None
        self._looked_at = -math.inf
        self._commit = self._look() if commit is None else commit
        self._cache = cache
        self._owner = cache.new_owner()
        pieces = files.index_length(self._commit)
        self._indexes: dict[Index, ReadIndex] = {
            field: ReadIndex(field, pieces, partial(self._stored_index, field))
            for field in get_args(Index)
        }

    @property
    def name(self) -> str:
        """Name of the recording."""
        return self._name

    @property
    def commit(self) -> CommitRecord:
        """The commit record last read from disk."""
        return self._commit

    def refresh(self) -> CommitRecord:
        """Read the commit record again.

        In object storage only that of a growing recording, now and then: each time is a request.
        What replaces a complete one has other marks, and so is seen when it is read.
        """
        age = time.monotonic() - self._looked_at
        if self._layout.blobs.is_remote and (self._commit.complete or age < FRESH_SECONDS):
            return self._commit
        return self._look()

    def _look(self) -> CommitRecord:
        self._looked_at = time.monotonic()
        stamp = self._layout.commit_stamp(self._name)
        if stamp is not None and stamp == self._stamp:
            return self._commit
        record, self._stamp = self._layout.read_commit(self._name), stamp
        if record != self._record:
            self._commit = self._layout.decode_commit(self._name, record)
            self._record = record
        return self._commit

    def read(self, start: int, stop: int, *, masks: bool = False) -> Frames:
        """Frames start..stop; masks where they are asked for and exist."""
        commit = self._commit
        if not 0 <= start <= stop <= commit.length:
            raise IndexError(
                f"{self._layout.describe(self._name)}: frames {start}..{stop} asked for, "
                f"{commit.length} are committed"
            )
        self._check_kept(start, stop)
        try:
            return self._read(start, stop, masks=masks)
        except DamagedChunkError:
            self._look()
            self._check_kept(start, stop)  # they may just have been deleted
            raise

    def _check_kept(self, start: int, stop: int) -> None:
        released = self._commit.released
        if start < released and start < stop:
            raise ReleasedError(
                f"{self._layout.describe(self._name)}: frames {start}..{stop} asked for, and those "
                f"before {released} were deleted by the capture (--keep); ask for later ones"
            )

    def _read(self, start: int, stop: int, *, masks: bool) -> Frames:
        commit = self._commit
        return Frames(
            images=self._gather("frames", start, stop),
            pts_ns=self._index("pts_ns", start, stop),
            gap=self._index("gap", start, stop),
            captured_ns=self._index("captured_ns", start, stop) if commit.live else None,
            masks=self._gather("masks", start, stop) if masks and commit.has_masks else None,
        )

    def bring(self, start: int, stop: int) -> None:
        """Have frames start..stop sent to this machine, which are soon to be read."""
        commit = self._commit
        start, stop = max(start, commit.released), min(stop, commit.length)
        if start >= stop:
            return
        chunks = range(start // commit.chunk_length, -(-stop // commit.chunk_length))
        pieces: list[Callable[[], object]] = [
            partial(self._files.bring, "frames", chunks, commit),
            partial(self._index, "pts_ns", start, stop),
            partial(self._index, "gap", start, stop),
        ]
        if commit.live:
            pieces.append(partial(self._index, "captured_ns", start, stop))
        side_by_side(lambda piece: piece(), pieces, workers=len(pieces))

    def pts_ns(self, start: int = 0) -> Int64[np.ndarray, " n"]:
        """Times of all committed frames from `start` on."""
        return self._index("pts_ns", start, self._commit.length)

    def gap(self, start: int = 0) -> Bool[np.ndarray, " n"]:
        """From `start` on, where a committed frame does not continue its predecessor."""
        return self._index("gap", start, self._commit.length)

    def chunks(self) -> Iterator[StoredChunk]:
        """Read every chunk there is once, times before pixels; a damaged one brings its error."""
        commit = self._commit
        index: list[Index] = ["pts_ns", "gap", *(["captured_ns"] if commit.live else [])]
        pixels: list[Pixels] = ["frames", *(["masks"] if commit.has_masks else [])]
        for field in index:
            for start, stop in _runs(0, commit.length, self._files.index_length(commit)):
                yield _stored(field, partial(self._stored_index, field, start, stop))
        for field in pixels:
            for start, stop in _runs(commit.released, commit.length, commit.chunk_length):
                chunk = _stored(field, partial(self._gather, field, start, stop))
                if chunk.damage is not None and start < self._look().released:
                    continue  # it was deleted meanwhile
                yield chunk

    def close(self) -> None:
        """Forget the cached chunks; no file stays open between reads."""
        self._cache.forget(self._owner)

    def _index(self, field: Index, start: int, stop: int) -> Shaped[np.ndarray, " n"]:
        """Of frames start..stop, from what was read before where that is enough."""
        return self._indexes[field].values(start, stop, self._commit.length)

    def _stored_index(self, field: Index, start: int, stop: int) -> Shaped[np.ndarray, " n"]:
        values = self._files.index(field, start, stop, self._commit)
        if values.shape != (stop - start,):
            raise self._damaged(field, start, stop, values)
        return values

    def _gather(self, field: Pixels, start: int, stop: int) -> UInt8[np.ndarray, "n h w *c"]:
        chunk_length = self._commit.chunk_length
        chunks = range(start // chunk_length, -(-stop // chunk_length))
        if chunks and field == "frames" and self._commit.codec == "none":
            return self._join(start, stop, chunks)
        size = (self._commit.height, self._commit.width)
        shape = (*size, 3) if field == "frames" else size
        out = np.empty((stop - start, *shape), np.uint8)

        def fill(chunk: int) -> None:
            first = chunk * chunk_length
            begin, end = max(start, first), min(stop, first + chunk_length)
            self._fill(out[begin - start : end - start], field, chunk, begin - first)

        missing = sum(ChunkKey(self._owner, field, chunk) not in self._cache for chunk in chunks)
        worthwhile = chunk_length * math.prod(shape) >= _BYTES_PER_THREAD
        workers = min(missing, available_cores()) if worthwhile else 1
        side_by_side(fill, chunks, workers=workers)
        return out

    def _join(self, start: int, stop: int, chunks: range) -> UInt8[np.ndarray, "n h w c"]:
        """Frames that are stored as they are: of one chunk as a view, of several as a copy."""
        length = self._commit.chunk_length
        pieces = []
        for chunk in chunks:
            first = chunk * length
            begin, end = max(start, first) - first, min(stop - first, length)
            pieces.append(self._whole("frames", chunk, begin, end)[begin:end])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _whole(
        self, field: Pixels, chunk: int, skip: int, stop: int
    ) -> UInt8[np.ndarray, "n h w *c"]:
        """A chunk that holds its frames skip..stop, from the cache or from disk."""
        key = ChunkKey(self._owner, field, chunk)
        if (cached := self._cached(key, stop)) is not None:
            return cached
        pixels = self._files.pixels(field, chunk, self._commit)
        self._check(field, chunk * self._commit.chunk_length + skip, stop - skip, pixels[skip:stop])
        self._cache.put(key, pixels)
        return pixels

    def _cached(self, key: ChunkKey, stop: int) -> UInt8[np.ndarray, "n h w *c"] | None:
        cached = self._cache.get(key)
        return None if cached is None or len(cached) < stop else cached

    def _fill(
        self, out: UInt8[np.ndarray, "n h w *c"], field: Pixels, chunk: int, skip: int
    ) -> None:
        """Put into `out` what a chunk holds after its first `skip` frames."""
        key = ChunkKey(self._owner, field, chunk)
        stop, length = skip + len(out), self._commit.chunk_length
        if len(out) < length or self._cached(key, stop) is not None:
            out[:] = self._whole(field, chunk, skip, stop)[skip:stop]
            return
        pixels = self._files.pixels(field, chunk, self._commit, out)
        self._check(field, chunk * length, length, pixels)
        # all that the clip before this one may want of it, and half of what a chunk takes
        self._cache.put(key, out[: -(-length // 2)].copy())

    def _check(self, field: Pixels, start: int, count: int, found: np.ndarray) -> None:
        size = (self._commit.height, self._commit.width)
        if found.shape != (count, *size, *((3,) if field == "frames" else ())):
            raise self._damaged(field, start, start + count, found)

    def _damaged(self, field: str, start: int, stop: int, found: np.ndarray) -> DamagedChunkError:
        return DamagedChunkError(
            f"{self._layout.describe(self._name)}: `{field}` of frames {start}..{stop} is "
            f"{found.dtype} of shape {found.shape}, not what the commit record says; restore the "
            "recording or ingest it again with --overwrite"
        )


def _runs(begin: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, end)) for start in range(begin, end, step))


def _stored(field: Pixels | Index, read: Callable[[], Shaped[np.ndarray, "n ..."]]) -> StoredChunk:
    try:
        return StoredChunk(field, read())
    except DamagedChunkError as error:
        return StoredChunk(field, None, error)
