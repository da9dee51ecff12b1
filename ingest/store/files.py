"""Blobs as files and folders of this machine, and a lock as the lease on a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ingest.disk.durable import (
    make_folder,
    remove_folder,
    sync_all,
    write_whole,
    written_together,
)
from ingest.disk.inside import Buffer, map_inside, open_inside, read_inside
from ingest.disk.locks import FileLock, is_locked
from ingest.store.blob_protocols import MAX_BLOB_BYTES, Blob, Put, Tail

SETTLED_NS = 1_000_000_000
"""Files that follow each other faster may have the same number and times."""


class LocalBlobs:
    """Blobs as files of this machine."""

    is_remote = False

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        """Unless `durable`, writing does not wait for the disk: see `ingest.disk.durable`."""
        self._store = self._root = root
        self._folder = ""
        """Where the root is in the store, as nothing from there on may be a link."""
        self._durable = durable

    @property
    def location(self) -> str:
        """The root, as messages show it and as it is opened again."""
        return str(self._root)

    @property
    def durable(self) -> bool:
        """Whether each write waits for the disk."""
        return self._durable

    def within(self, folder: str) -> LocalBlobs:
        """The blobs of one folder, with that as the root."""
        inner = LocalBlobs(self._store, durable=self._durable)
        inner._root, inner._folder = self._root / folder, self._name(folder)
        return inner

    def _name(self, name: str) -> str:
        """A name as the whole store has it."""
        return f"{self._folder}/{name}" if self._folder and name else self._folder or name

    def found(self) -> str | None:
        """What is at the root; None where nothing is, or an empty folder."""
        if not self._root.exists():
            return None
        if not self._root.is_dir():
            return "a file"
        return "a directory with other files in it" if any(self._root.iterdir()) else None

    def get(self, name: str, *, most_bytes: int = MAX_BLOB_BYTES) -> bytes:
        """All bytes of a plain file, without following links out of the store."""
        return read_inside(self._store, self._name(name), most_bytes=most_bytes)

    def view(self, name: str, *, most_bytes: int = MAX_BLOB_BYTES) -> Buffer:
        """The same bytes, mapped; a blob is never shortened, only replaced or deleted."""
        return map_inside(self._store, self._name(name), most_bytes=most_bytes)

    def stamp(self, name: str) -> tuple[int, ...] | None:
        """Which file it is; None while it is so new that its times may be those of the next one."""
        try:
            found = os.lstat(f"{self._root}/{name}")  # asked before and after each clip
        except OSError:
            return None
        if time.time_ns() - found.st_mtime_ns < SETTLED_NS:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    def open(self, name: str) -> BinaryIO:
        """The same file, for what reads parts of it."""
        return open_inside(self._store, self._name(name))

    def tail(self, name: str, count: int) -> Tail:
        """The last bytes of a file."""
        with self.open(name) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - count))
            return Tail(file.read(count), size, "")

    def get_range(
        self, name: str, start: int, stop: int, tail: Tail, *, fresh: bool = False
    ) -> bytes:
        """Some bytes of a file."""
        with self.open(name) as file:
            file.seek(start)
            return file.read(stop - start)

    def bring(self, name: str, start: int, stop: int, tail: Tail) -> None:
        """Nothing: they are here."""

    def put(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Make or replace a file in one step.

        FileNotFoundError where its folder was deleted: made again, it would lack what else was in
        it, and a commit record put there would speak of frames that are gone.
        """
        write_whole(self._root / name, data, durable=self._durable or durable)

    @contextmanager
    def put_together(self, folder: str) -> Iterator[Put]:
        """A function that puts files of one folder, which is then synced once."""
        with written_together(self._root / folder, durable=self._durable) as write:
            yield lambda name, data: write(self._root / name, data)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._root / name).exists()

    def delete(self, name: str) -> bool:
        """Delete a file; returns whether there was one."""
        try:
            (self._root / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def entries(self, folder: str = "") -> Iterator[Blob]:
        """All files below a folder, leftovers too."""
        for path in (self._root / folder).rglob("*"):
            with suppress(FileNotFoundError):  # a writer has just replaced or deleted it
                if path.is_file():
                    yield Blob(path.relative_to(self._root).as_posix(), path.stat().st_size)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly within one, sorted, without hidden ones."""
        found = (self._root / folder).glob("[!.]*")
        return sorted(path.name for path in found if path.is_dir())

    def make_folder(self, folder: str) -> None:
        """Make a folder, where there is none."""
        make_folder(self._root / folder, durable=self._durable)

    def remove_folder(self, folder: str) -> None:
        """Hide a folder by renaming it, then delete it file by file."""
        remove_folder(self._root / folder)

    def lease(self, folder: str, record: str, *, what: str) -> LocalLease:
        """Lock a file beside the folder, which is there only as long as it is locked."""
        lock = FileLock(self._root / _lock_name(folder), what=what)
        return LocalLease(self, folder, record, lock)

    def is_leased(self, folder: str, record: str) -> bool:
        """Whether a living process has locked the file."""
        return is_locked(self._root / _lock_name(folder))

    def sync(self) -> None:
        """Put everything on disk."""
        sync_all()


def _lock_name(folder: str) -> str:
    above, slash, name = folder.rpartition("/")
    return f"{above}{slash}.{name}.lock"


class LocalLease:
    """A Lease on a folder of files, in which its record is too: a lock, which the kernel drops."""

    def __init__(self, blobs: LocalBlobs, folder: str, record: str, lock: FileLock) -> None:
        self._all = blobs
        self._folder, self._record = folder, record
        self._lock = lock
        self.blobs = blobs.within(folder)

    def commit(self, data: bytes, *, complete: bool) -> None:
        """Put the record in one step."""
        self._all.put(self._record, data, durable=complete)

    def clear(self) -> None:
        """Delete the folder, and the record with it."""
        self._all.remove_folder(self._folder)

    remove = clear

    def release(self) -> None:
        """Let others write."""
        self._lock.release()
