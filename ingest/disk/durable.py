"""Files that are whole or absent, also after a kill or a power cut.

    write under another name ──▶ fsync ──▶ rename ──▶ fsync the folder

Without the two fsyncs (`durable=False`) that holds after a kill, but not after a power cut.

    write_whole        bytes -> one file
    written_together   bytes -> several files of a folder, which is synced once
    written_file       a file that some library fills by its name
    written_folder     a folder of files
    partial_file       only the other name, for a caller with its own order of renames
    remove_folder      a folder, whole under its name until it is gone

The other name is hidden, and says which process writes: `.NAME.PID.RANDOM.partial`.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.errors import StorageFullError, StoreError

PARTIAL = ".partial"
"""Suffix of a file that is still being written; one that is left over counts for nothing."""

ASIDE = ".removed"
"""Suffix of a folder that is to be deleted."""

_FULL = {errno.ENOSPC: "disk", errno.EDQUOT: "quota", errno.EFBIG: "file size limit"}


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file in one step; on return its bytes and its name are on disk, if `durable`."""
    with written_together(path.parent, durable=durable) as write:
        write(path, data)


@contextmanager
def written_together(
    folder: Path, *, durable: bool = True
) -> Iterator[Callable[[Path, bytes], None]]:
    """A function that writes files of one folder; they get their names when all are written.

    On leaving, their bytes and names are on disk if `durable`, for a single sync of the folder.
    After an error those that were there before stay. Several threads may write at once.
    """
    written: list[tuple[Path, Path]] = []

    def write(path: Path, data: bytes) -> None:
        partial = _hidden(path, PARTIAL)
        written.append((partial, path))
        with partial.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())

    try:
        yield write
        for partial, path in written:
            partial.replace(path)
    except BaseException:
        for partial, _ in written:
            partial.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(folder)


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """The name of a file to write, which becomes `path` on leaving, its bytes and name on disk.

    After an error the file that was there before stays.
    """
    with partial_file(path) as partial:
        yield partial
        sync_file(partial)
        partial.replace(path)
        sync_folder(path.parent)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `path` on leaving, its files and name on disk.

    After an error the folder that was there before stays. It is hidden just before the rename, and
    deleted after it: a writer killed between the two leaves it whole, under its hidden name.
    """
    partial = _hidden(path, PARTIAL)
    partial.mkdir()
    try:
        yield partial
        for written in partial.rglob("*"):
            (sync_folder if written.is_dir() else sync_file)(written)
        sync_folder(partial)
        with _set_aside(path):
            partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_folder(path: Path) -> None:
    """Delete a folder, if there is one; a part of it never passes for the whole."""
    if path.exists():
        with _set_aside(path):
            pass


@contextmanager
def _set_aside(path: Path) -> Iterator[None]:
    """Hide a folder, and delete it once the names around it are on disk.

    After an error it gets its name back, unless another folder has taken that.
    """
    aside = _hidden(path, ASIDE)
    try:
        if path.exists():
            path.rename(aside)
        yield
        sync_folder(path.parent)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    if aside.exists():
        shutil.rmtree(aside)


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """The name under which to write what becomes `path`; deleted on leaving, unless renamed.

    Each writer has a name of its own. What killed writers on this machine have left is deleted.
    """
    _remove_orphans(path)
    partial = _hidden(path, PARTIAL)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _hidden(path: Path, suffix: str) -> Path:
    """Another name in the same folder, which no other writer has."""
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:12]}{suffix}")


def _remove_orphans(path: Path) -> None:
    """Delete partial files of a name whose writers are dead."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.[0-9a-f]{{12}}{re.escape(PARTIAL)}")
    for left in path.parent.glob(f".*{PARTIAL}"):
        found = ours.fullmatch(left.name)
        if found and not _is_running(int(found[1])):
            left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    return True


def make_folder(path: Path, *, durable: bool = True) -> None:
    """Make a folder where there is none, and those above it; on return they are on disk."""
    if path.is_dir():
        return
    make_folder(path.parent, durable=durable)
    path.mkdir(exist_ok=True)
    if durable:
        sync_folder(path.parent)


def remove_partial_files(folder: Path) -> None:
    """Delete what a killed writer left half written."""
    for path in folder.rglob(f"*{PARTIAL}"):
        path.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Put a file's bytes on disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Put a folder's entries on disk: a rename is not safe before that."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_all() -> None:
    """Put everything on disk that any program has written so far."""
    os.sync()


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def clear_write_errors(where: str, *, kept: str = "what was committed is safe") -> Iterator[None]:
    """Turn an operating system's refusal to write into one clear StoreError."""
    try:
        yield
    except (StoreError, TimeoutError, ConnectionError):  # a peer that is silent writes no file
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(
                f"{where}: the {_FULL[error.errno]} is exhausted ({os.strerror(error.errno)}); "
                f"{kept}: free some space and run the same command again"
            ) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"{where}: cannot write ({reason}); check the path and its rights") from (
            error
        )
