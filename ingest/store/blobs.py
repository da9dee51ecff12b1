"""Where a store keeps its bytes: named blobs under one root, each of them whole or absent.

    layout, chunks ──▶ Blobs ──┬── LocalBlobs: files and folders of this machine
                               └── ObjectBlobs: objects of S3, Google Cloud Storage or Azure

A name is a path relative to the root, with `/` between its parts. Nothing above this module opens,
renames, locks or syncs a file, except HDF5, which can only read files (`LocalBlobs.open`).
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

from ingest.disk.durable import (
    PARTIAL,
    FileLock,
    is_locked,
    make_folder,
    remove_folder,
    sync_all,
    write_whole,
    written_together,
)
from ingest.disk.inside import Buffer, map_inside, open_inside, read_inside
from ingest.errors import NotAStoreError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OBJECT_STORES = ("s3", "gs", "az")

MAX_BLOB_BYTES = 2 << 30
"""Of any blob: the largest chunk there is."""
SETTLED_NS = 1_000_000_000
"""Files that follow each other faster may have the same number and times."""

Put = Callable[[str, bytes], None]
"""Writes one blob by its name."""


class Blob(NamedTuple):
    """One entry of a listing."""

    name: str
    size_bytes: int

    @property
    def is_leftover(self) -> bool:
        """Whether a killed writer left it half written: nothing in it counts."""
        return self.name.endswith(PARTIAL)


class Tail(NamedTuple):
    """The end of a blob."""

    data: bytes
    size_bytes: int
    """Of the whole blob."""
    version: str
    """Which blob of that name it is, where several places may have put one."""


@runtime_checkable
class Lease(Protocol):
    """The exclusive right to write a folder and its record; ends with the process that holds it."""

    @property
    def blobs(self) -> "Blobs":
        """The folder, to be written."""
        ...

    def commit(self, data: bytes, *, complete: bool) -> None:
        """Put the record in one step, safe from a power cut if it is to be the last.

        Raises RecordingLockedError where the right was lost.
        """
        ...

    def clear(self) -> None:
        """Delete what is in the folder."""
        ...

    def remove(self) -> None:
        """Delete the folder and the record; a part of them never passes for the whole."""
        ...

    def release(self) -> None:
        """Let others write; releasing twice is allowed."""
        ...


@runtime_checkable
class Blobs(Protocol):
    """Named bytes under one root. Several threads may use it at once."""

    @property
    def location(self) -> str:
        """The root, as messages show it and as it is opened again."""
        ...

    @property
    def durable(self) -> bool:
        """Whether a blob is safe from a power cut as soon as it is put, or only after `sync`."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether every request takes its time and costs money, and nothing can be locked."""
        ...

    def within(self, folder: str) -> "Blobs":
        """The blobs of one folder, with that as the root."""
        ...

    def found(self) -> str | None:
        """What is at the root, in a few words; None where a new store can be made."""
        ...

    def get(self, name: str, *, most_bytes: int = MAX_BLOB_BYTES) -> bytes:
        """All bytes of a blob.

        Raises FileNotFoundError where there is none, OSError where it has more than `most_bytes`.
        """
        ...

    def view(self, name: str, *, most_bytes: int = MAX_BLOB_BYTES) -> Buffer:
        """The same, but not copied where that can be; raises as `get`."""
        ...

    def stamp(self, name: str) -> tuple[int, ...] | None:
        """Numbers that change when a blob is replaced; None where that cannot be told this way."""
        ...

    def tail(self, name: str, count: int) -> Tail:
        """The last `count` bytes of a blob, or all that it has; raises as `get`."""
        ...

    def get_range(
        self, name: str, start: int, stop: int, tail: Tail, *, fresh: bool = False
    ) -> bytes:
        """Bytes start..stop of the blob that `tail` is of, or as many as there are.

        Raises as `get`. With `fresh` they come from where the blob is, not from what is kept here.
        """
        ...

    def fetch(self, name: str, start: int, stop: int, tail: Tail) -> None:
        """Bring those bytes here, if they are not, for `get_range`; several threads may do so."""
        ...

    def put(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Make or replace a blob in one step; safe from a power cut if `self.durable or durable`.

        Raises OSError, after which what was there before stays; also where its folder is gone, in
        a place where folders exist by themselves.
        """
        ...

    def put_together(self, folder: str) -> AbstractContextManager[Put]:
        """A function that puts blobs of one folder, which are there when the context is left.

        Several threads may call it at once. After an error the earlier blobs stay.
        """
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a blob."""
        ...

    def delete(self, name: str) -> bool:
        """Delete a blob; returns whether there was one."""
        ...

    def entries(self, folder: str = "") -> Iterator[Blob]:
        """All blobs whose names begin with `folder`, leftovers too, in no order."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly within one, sorted, without hidden ones (`.name`)."""
        ...

    def make_folder(self, folder: str) -> None:
        """Make a folder to put blobs in, where folders exist by themselves."""
        ...

    def remove_folder(self, folder: str) -> None:
        """Delete all blobs of a folder; a part of it never passes for the whole."""
        ...

    def lease(self, folder: str, record: str, *, what: str) -> Lease:
        """Keep other writers off a folder and the record that speaks of it.

        Raises RecordingLockedError, which names `what`, if one is there.
        """
        ...

    def is_leased(self, folder: str, record: str) -> bool:
        """Whether a process holds that lease, as far as this place can tell."""
        ...

    def sync(self) -> None:
        """Make all that was put so far safe from a power cut."""
        ...


def is_address(location: str) -> bool:
    """Whether the location of a store is an address, and not a path."""
    return _ADDRESS.match(location) is not None


def open_blobs(location: str | Path, *, durable: bool = True) -> Blobs:
    """The blobs at the location of a store; this alone decides what a location means.

    Unless `durable`, writing does not wait for the disk. Raises NotAStoreError for an address of
    anything but object storage, and where what reads that is not installed.
    """
    found = _ADDRESS.match(location) if isinstance(location, str) else None
    if found is None:
        return LocalBlobs(Path(location), durable=durable)
    if found[1].lower() not in _OBJECT_STORES:
        raise NotAStoreError(
            f"{location}: stores are kept in folders of this machine and in object storage; name a "
            "folder, or an address that begins with s3://, gs:// or az://"
        )
    try:
        from ingest.store.objects import open_objects  # few need it
    except ImportError as error:
        raise NotAStoreError(
            f"{location}: object storage needs obstore; run pip install -e '.[scale]'"
        ) from error
    return open_objects(str(location))


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

    def within(self, folder: str) -> "LocalBlobs":
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
            found = (self._root / name).lstat()
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

    def fetch(self, name: str, start: int, stop: int, tail: Tail) -> None:
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

    def lease(self, folder: str, record: str, *, what: str) -> "LocalLease":
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


def delete_leftovers(blobs: Blobs) -> None:
    """Delete what a killed writer left half written."""
    for blob in blobs.entries():
        if blob.is_leftover:
            blobs.delete(blob.name)
