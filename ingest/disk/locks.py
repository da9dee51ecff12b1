"""Locks on files, which the kernel drops with the process that holds them, however it ends."""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from ingest.disk.inside import open_inside
from ingest.errors import RecordingLockedError, StoreError

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileLock:
    """Keeps a second writer off; its file is there only as long as it is held."""

    def __init__(self, path: Path, *, what: str) -> None:
        """Take the lock; `what` is written, for people.

        Raises RecordingLockedError where another process holds it, and StoreError where its file
        system does not lock.
        """
        self._path = path
        self._file: BinaryIO | None = _locked(path, what)

    def release(self) -> None:
        """Let others write; releasing twice is allowed."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)  # before unlocking, lest one locks the old file
            self._file.close()
            self._file = None


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of this file.

    A killed process leaves the file, but not the lock. Raises StoreError where that cannot be seen.
    """
    try:
        with open_inside(path.parent, path.name) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno is None:  # a link or a device, which this program never locks
            return False
        raise _unusable(path, error) from error
    return False


def take_lock(descriptor: int, path: Path) -> bool:
    """Lock an open file; False where another process holds its lock.

    Raises StoreError where its file system does not lock.
    """
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if is_locked(path):  # otherwise another process has only looked
                return False
        except OSError as error:
            raise _unusable(path, error) from error
        else:
            return True


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: its lock cannot be used ({os.strerror(error.errno or 0)}); check the rights of "
        "the file, and that its file system has locks: a network mount may need a lock service"
    )


def _locked(path: Path, what: str) -> BinaryIO:
    while True:
        file = os.fdopen(os.open(path, _FLAGS, 0o666), "r+b")
        try:
            is_taken = take_lock(file.fileno(), path)
        except StoreError:
            file.close()
            raise
        if not is_taken:
            with file:
                holder = file.read(20).decode(errors="replace").strip() or "unknown"
            raise RecordingLockedError(
                f"{what}: process {holder} is writing it; wait for that, or stop it"
            )
        if _is_still_there(path, file):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
            return file
        file.close()  # its holder removed it between our open and our lock


def _is_still_there(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
