"""The readers of recordings that were used last; of a store far away, frames brought ahead."""

from __future__ import annotations

from concurrent.futures import Future

from ingest.disk.threads import Pool
from ingest.store.cache import ChunkCache
from ingest.store.protocols import RecordingReader, Store
from ingest.store.records import CommitRecord

AHEAD, MOST_AHEAD = 32, 1024
"""Runs of frames that are brought at the same time, and those that wait for it with them: trainers
that come and go must not keep others waiting for what they will never take."""
OPEN_READERS, OPEN_REMOTE_READERS = 16, MOST_AHEAD
"""In object storage no fewer than are waited for: a reader keeps the times of frames that came."""


class OpenReaders:
    """Readers of one store, which share a cache of decoded chunks.

    Not for use by several threads at once.
    """

    def __init__(self, store: Store, cache: ChunkCache) -> None:
        self._store = store
        self._cache = cache
        self._most = OPEN_REMOTE_READERS if store.is_remote else OPEN_READERS
        self._opened: dict[str, RecordingReader] = {}
        """The one used longest ago comes first."""
        self._pool = Pool(AHEAD)
        self._ahead: set[Future[None]] = set()

    def find(self, name: str) -> RecordingReader | None:
        """The reader of a recording where it is open."""
        return self._opened.get(name)

    def open(self, name: str, commit: CommitRecord) -> RecordingReader:
        """The reader of a recording of which `commit` is known; the one used longest ago is closed
        for a new one."""
        reader = self._opened.pop(name, None)
        if reader is None:
            reader = self._store.reader(name, cache=self._cache, commit=commit)
        self._opened[name] = reader
        while len(self._opened) > self._most:
            self._opened.pop(next(iter(self._opened))).close()
        return reader

    def bring(
        self, name: str, commit: CommitRecord, start: int, stop: int, *, after: int
    ) -> Future[None] | None:
        """Have frames start..stop sent here, of a store that is far away; does not wait.

        What is needed `after` fewer others comes first, so that who begins need not wait long.
        None where too much is waited for already, unless it is needed now: ask again later.
        """
        if after and len(self._ahead) >= MOST_AHEAD:
            return None
        bring = self.open(name, commit).bring
        coming = self._pool.submit(bring, start, stop, after=after)
        self._ahead.add(coming)
        coming.add_done_callback(self._ahead.discard)
        return coming

    def close(self) -> None:
        """Close all, and wait for nothing that is on its way."""
        self._pool.close()
        while self._opened:
            self._opened.popitem()[1].close()
