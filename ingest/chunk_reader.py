"""Random access to committed frames through a small cache of decoded chunks."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from ingest.chunks import ChunkFiles
from ingest.errors import DamagedChunkError
from ingest.frame import Frames
from ingest.layout import StoreLayout
from ingest.store import CommitRecord, Index, Pixels, StoredChunk


class ChunkCache:
    """The most recently used chunks, as long as they fit into `max_bytes`; the newest always."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._chunks: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    def get(self, key: tuple[str, int]) -> np.ndarray | None:
        """The chunk, which becomes the most recently used, or None."""
        if key in self._chunks:
            self._chunks.move_to_end(key)
        return self._chunks.get(key)

    def put(self, key: tuple[str, int], chunk: np.ndarray) -> None:
        """Keep a chunk and let go of the ones unused for longest."""
        self._chunks[key] = chunk
        self._bytes += chunk.nbytes
        while self._bytes > self._max_bytes and len(self._chunks) > 1:
            _, old = self._chunks.popitem(last=False)
            self._bytes -= old.nbytes


class ChunkReader:
    """A RecordingReader over the chunks of any format."""

    def __init__(
        self, layout: StoreLayout, name: str, files: ChunkFiles, *, cache_bytes: int
    ) -> None:
        self._layout = layout
        self._name = name
        self._files = files
        self._commit = layout.commit(name)
        self._cache = ChunkCache(cache_bytes)
        self._pts_ns: Int64[np.ndarray, " n"] = np.empty(0, np.int64)
        self._gap: Bool[np.ndarray, " n"] = np.empty(0, np.bool_)

    @property
    def name(self) -> str:
        """Name of the recording."""
        return self._name

    @property
    def commit(self) -> CommitRecord:
        """The commit record last read from disk."""
        return self._commit

    def refresh(self) -> CommitRecord:
        """Read the commit record again."""
        self._commit = self._layout.commit(self._name)
        return self._commit

    def read(self, start: int, stop: int, *, masks: bool = False) -> Frames:
        """Frames start..stop as fresh arrays; masks where they are asked for and exist."""
        commit = self._commit
        if not 0 <= start <= stop <= commit.length:
            raise IndexError(
                f"{self._layout.path}: frames {start}..{stop} of recording {self._name!r} asked "
                f"for, {commit.length} are committed"
            )
        self._load_index()
        captured = self._index("captured_ns", start, stop) if commit.live else None
        return Frames(
            images=self._gather("frames", start, stop),
            pts_ns=self._pts_ns[start:stop].copy(),
            gap=self._gap[start:stop].copy(),
            captured_ns=captured,
            masks=self._gather("masks", start, stop) if masks and commit.has_masks else None,
        )

    def pts_ns(self) -> Int64[np.ndarray, " n"]:
        """Times of all committed frames."""
        self._load_index()
        return self._pts_ns[: self._commit.length].copy()

    def gap(self) -> Bool[np.ndarray, " n"]:
        """Where a committed frame does not continue its predecessor."""
        self._load_index()
        return self._gap[: self._commit.length].copy()

    def chunks(self) -> Iterator[StoredChunk]:
        """Read every committed chunk once, times before pixels; a damaged one brings its error."""
        commit = self._commit
        index: list[Index] = ["pts_ns", "gap", *(["captured_ns"] if commit.live else [])]
        pixels: list[Pixels] = ["frames", *(["masks"] if commit.has_masks else [])]
        for field in index:
            for start, stop in _runs(commit.length, self._files.index_length(commit)):
                yield _stored(field, partial(self._index, field, start, stop))
        for field in pixels:
            for start, stop in _runs(commit.length, commit.chunk_length):
                yield _stored(field, partial(self._gather, field, start, stop))

    def close(self) -> None:
        """Forget the cached chunks; no file stays open between reads."""
        self._cache = ChunkCache(0)

    def __enter__(self) -> "ChunkReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _load_index(self) -> None:
        known, length = len(self._pts_ns), self._commit.length
        if known < length:
            pts_ns, gap = (self._index(field, known, length) for field in ("pts_ns", "gap"))
            self._pts_ns = np.concatenate([self._pts_ns, pts_ns])
            self._gap = np.concatenate([self._gap, gap])

    def _index(self, field: Index, start: int, stop: int) -> Shaped[np.ndarray, " n"]:
        values = self._files.index(field, start, stop, self._commit)
        if values.shape != (stop - start,):
            raise self._damaged(field, start, stop, values)
        return values

    def _gather(self, field: Pixels, start: int, stop: int) -> UInt8[np.ndarray, "n h w *c"]:
        size = (self._commit.height, self._commit.width)
        shape = (*size, 3) if field == "frames" else size
        out = np.empty((stop - start, *shape), np.uint8)
        chunk_length = self._commit.chunk_length
        for chunk in range(start // chunk_length, -(-stop // chunk_length)):
            first = chunk * chunk_length
            begin, end = max(start, first), min(stop, first + chunk_length)
            pixels = self._chunk(field, chunk)[begin - first : end - first]
            if pixels.shape != (end - begin, *shape) or pixels.dtype != np.uint8:
                raise self._damaged(field, begin, end, pixels)
            out[begin - start : end - start] = pixels
        return out

    def _chunk(self, field: Pixels, chunk: int) -> UInt8[np.ndarray, "n h w *c"]:
        cached = self._cache.get((field, chunk))
        if cached is None:
            cached = self._files.pixels(field, chunk, self._commit)
            self._cache.put((field, chunk), cached)
        return cached

    def _damaged(self, field: str, start: int, stop: int, found: np.ndarray) -> DamagedChunkError:
        return DamagedChunkError(
            f"{self._layout.describe(self._name)}: `{field}` of frames {start}..{stop} is "
            f"{found.dtype} of shape {found.shape}, not what the commit record says; restore the "
            "recording or ingest it again with --overwrite"
        )


def _runs(length: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, length)) for start in range(0, length, step))


def _stored(field: Pixels | Index, read: Callable[[], Shaped[np.ndarray, "n ..."]]) -> StoredChunk:
    try:
        return StoredChunk(field, read())
    except DamagedChunkError as error:
        return StoredChunk(field, None, error)
