"""A store of recordings, in any format that can keep chunks.

What reads and writes recordings is imported when first needed, because importing NumPy takes longer
than listing a store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ingest.disk.durable import clear_write_errors
from ingest.disk.threads import in_order
from ingest.errors import RecordingExistsError, StoreError
from ingest.store.blobs import Blobs, Lease
from ingest.store.layout import StoreLayout
from ingest.store.records import Codec, CommitRecord, RecordSettings, Source, StoreFormat

if TYPE_CHECKING:
    from ingest.store.cache import ChunkCache
    from ingest.store.protocols import ChunkFiles
    from ingest.store.reader import ChunkReader
    from ingest.store.writer import ChunkWriter

Answer = TypeVar("Answer")

_READER_CACHE_BYTES = 64 << 20
ASKED_AT_ONCE = 64
"""Recordings that an object store is asked about at the same time."""

OpenFiles = Callable[[Blobs, str], "ChunkFiles"]
"""From a recording's blobs, and how messages call the recording, to its chunks."""


class DirectoryStore:
    """A Store: one folder per recording, so that many writers need no coordination."""

    def __init__(self, layout: StoreLayout, open_files: OpenFiles) -> None:
        self._layout = layout
        self._open_files = open_files

    @property
    def location(self) -> str:
        """Where the store is."""
        return self._layout.blobs.location

    @property
    def format(self) -> StoreFormat:
        """Format of all its recordings."""
        return self._layout.format

    @property
    def is_remote(self) -> bool:
        """Whether it is in object storage."""
        return self._layout.blobs.is_remote

    def recordings(self) -> list[str]:
        """Names of all recordings, sorted."""
        return self._layout.recordings()

    def uncommitted(self) -> list[str]:
        """Names of folders without a commit record that no process is writing."""
        return self._layout.uncommitted()

    def commit(self, name: str) -> CommitRecord:
        """The commit record of a recording, fresh from disk."""
        return self._layout.commit(name)

    def for_each(
        self, ask: Callable[[str], Answer], names: Iterable[str]
    ) -> Iterator[tuple[str, Future[Answer]]]:
        """What `ask` says of one recording after the other; of many at once, far away."""
        names = list(names)
        workers = ASKED_AT_ONCE if self.is_remote else 1
        return zip(names, in_order(ask, names, workers=workers), strict=True)

    def size_bytes(self, name: str) -> int:
        """What a recording takes on disk."""
        return self._layout.size_bytes(name)

    def leftovers(self, name: str) -> list[str]:
        """Files that a killed writer left half written."""
        return self._layout.leftovers(name)

    def is_being_written(self, name: str) -> bool:
        """Whether a living process is adding to a recording."""
        return self._layout.is_being_written(name)

    def settle(self, name: str) -> None:
        """Let other programs see what counts of a recording whose writer was killed.

        Nothing is deleted, for its record may be damaged. Nothing happens where a process writes
        it, or where this one may not write; nor in object storage, where asking for the lease would
        take it from a writer at work.
        """
        if self.is_remote:
            return
        with suppress(StoreError):
            commit = self.commit(name)
            if commit.complete or self._files(name).is_settled(commit):
                return
            lock = self._layout.lock(name)
            try:
                commit = self.commit(name)  # which does not change any more
                with clear_write_errors(self._layout.describe(name)):
                    self._files(name).settle(commit)
            finally:
                lock.release()

    def reader(
        self, name: str, *, cache: ChunkCache | None = None, commit: CommitRecord | None = None
    ) -> ChunkReader:
        """Open a recording for reading, with a cache that others use too or one of its own."""
        from ingest.store.cache import ChunkCache
        from ingest.store.reader import ChunkReader

        cache = ChunkCache(_READER_CACHE_BYTES) if cache is None else cache
        return ChunkReader(self._layout, name, self._files(name), cache, commit)

    def writer(
        self,
        name: str,
        *,
        source: Source,
        settings: RecordSettings,
        height: int,
        width: int,
        has_masks: bool = False,
        live: bool = False,
        max_chunk_length: int | None = None,
        codec: Codec = "zstd",
        overwrite: bool = False,
    ) -> ChunkWriter:
        """Begin a recording, or continue an unfinished one after its last committed frame."""
        from ingest.store.formats.codec import chunk_length

        new = CommitRecord(
            durable=self._layout.blobs.durable,
            live=live,
            height=height,
            width=width,
            has_masks=has_masks,
            chunk_length=chunk_length(height, width, max_chunk_length, self._chunk_bytes(codec)),
            codec=codec,
            source=source,
            settings=settings,
        )
        if self.is_remote and not overwrite:
            self._stored(name, new)  # what is refused must not claim: that ends another's lease
        lock = self._layout.lock(name)
        try:
            if overwrite and not self.is_remote:
                self._layout.remove(name, lock)
            return self._begin(name, new, lock, is_new=overwrite)
        except BaseException:
            lock.release()
            raise

    def remove(self, name: str) -> None:
        """Delete a recording from disk; RecordingLockedError while a process writes it."""
        lock = self._layout.lock(name)
        try:
            self._layout.remove(name, lock)
        finally:
            lock.release()

    def _chunk_bytes(self, codec: Codec) -> int:
        from ingest.store.formats.codec import CHUNK_BYTES, MAPPED_CHUNK_BYTES

        is_mapped = codec == "none" and self.format == "zarr" and not self.is_remote
        return MAPPED_CHUNK_BYTES if is_mapped else CHUNK_BYTES

    def _begin(self, name: str, new: CommitRecord, lock: Lease, *, is_new: bool) -> ChunkWriter:
        from ingest.store.writer import ChunkWriter

        stored = None if is_new else self._stored(name, new)
        commit = stored or new
        files = self._open_files(lock.blobs, self._layout.describe(name))
        with clear_write_errors(self._layout.describe(name)):
            if stored is None:
                if self.is_remote:  # only the record, once it is there, keeps others off
                    self._layout.write_commit(commit, lock)
                lock.clear()  # what a writer left that was killed, or what is overwritten
            if not commit.complete:
                files.begin(commit)
            if stored is None and not self.is_remote:
                self._layout.write_commit(commit, lock)
        return ChunkWriter(self._layout, name, commit, files, lock)

    def _stored(self, name: str, new: CommitRecord) -> CommitRecord | None:
        """The record to continue from; refuses one that `new` does not continue."""
        stored = self._layout.unfinished(name, new.source, new.settings)
        if stored is not None:
            _check_frames_alike(self._layout.describe(name), stored, new)
        return stored

    def _files(self, name: str) -> ChunkFiles:
        return self._open_files(self._layout.files(name), self._layout.describe(name))


def _check_frames_alike(where: str, stored: CommitRecord, new: CommitRecord) -> None:
    before = (stored.height, stored.width, stored.has_masks)
    if before != (new.height, new.width, new.has_masks):
        raise RecordingExistsError(
            f"{where}: its frames are {stored.width}x{stored.height} (masks: {stored.has_masks}), "
            f"the source now gives {new.width}x{new.height} (masks: {new.has_masks}); "
            "use --overwrite to replace it"
        )
    if stored.codec != new.codec:
        raise RecordingExistsError(
            f"{where}: compressed with codec={stored.codec} (asked: {new.codec}); use the same "
            "codec, or --overwrite to replace it"
        )
