"""The readers of recordings that were used last, opened ahead where the store is far away."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from ingest.errors import IngestError
from ingest.store.cache import ChunkCache
from ingest.store.protocols import RecordingReader, Store

OPEN_READERS, OPEN_REMOTE_READERS = 16, 256
"""To open one in object storage takes several requests; it holds the times of its frames."""
AHEAD, MOST_AHEAD = 32, 1024
"""Runs of frames that are fetched at the same time, and those that wait for it with them: trainers
that come and go must not keep others waiting for what they will never take."""


class OpenReaders:
    """Readers of one store, which share a cache of decoded chunks.

    Not for use by several threads at once.
    """

    def __init__(self, store: Store, cache: ChunkCache) -> None:
        self._store = store
        self._cache = cache
        self._most = OPEN_REMOTE_READERS if store.is_remote else OPEN_READERS
        self._opened: dict[str, Future[RecordingReader]] = {}
        """The one used longest ago comes first."""
        self._ahead = ThreadPoolExecutor(AHEAD, "ahead")
        self._fetches: deque[Future[None]] = deque()

    def find(self, name: str) -> RecordingReader | None:
        """The reader of a recording where it is open, or is being opened."""
        return self.open(name) if name in self._opened else None

    def open(self, name: str) -> RecordingReader:
        """The reader of a recording; the one used longest ago is closed for a new one.

        Raises IngestError: there is no such recording, or it is damaged.
        """
        opened = self._opened.pop(name, None)
        reader = None
        if opened is not None:
            with suppress(IngestError):  # it may be well by now, and else says so again
                reader = opened.result()
        if reader is None:
            opened = Future()
            reader = self._store.reader(name, cache=self._cache)
            opened.set_result(reader)
        assert opened is not None
        self._add(name, opened)
        return reader

    def fetch(self, name: str, start: int, stop: int) -> None:
        """Have frames start..stop sent here, of a store that is far away; does not wait.

        Where too much is asked for already, they come when they are read.
        """
        while self._fetches and self._fetches[0].done():
            self._fetches.popleft()
        if len(self._fetches) >= MOST_AHEAD:
            return
        opened = self._opened.pop(name, None)
        if opened is None:
            opened = self._ahead.submit(self._store.reader, name, cache=self._cache)
        self._add(name, opened)
        self._fetches.append(self._ahead.submit(_fetch, opened, start, stop))

    def close(self) -> None:
        """Close all."""
        self._ahead.shutdown(wait=False, cancel_futures=True)
        while self._opened:
            self._close_first()

    def _add(self, name: str, opened: Future[RecordingReader]) -> None:
        self._opened[name] = opened
        while len(self._opened) > self._most:
            self._close_first()

    def _close_first(self) -> None:
        opened = self._opened.pop(next(iter(self._opened)))
        opened.add_done_callback(_close)


def _fetch(opened: Future[RecordingReader], start: int, stop: int) -> None:
    """Wait until a recording is open, which began before this, and bring some of its frames."""
    with suppress(IngestError, OSError):  # who reads them hears what is wrong
        opened.result().fetch(start, stop)


def _close(opened: Future[RecordingReader]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()
