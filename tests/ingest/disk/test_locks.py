import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from ingest.disk.locks import FileLock, is_locked
from ingest.errors import RecordingLockedError, StoreError


def test_a_lock_is_held_by_one_and_leaves_no_file(tmp_path):
    lock = FileLock(tmp_path / "lock", what="the file")
    with pytest.raises(RecordingLockedError, match=f"the file: process {os.getpid()} is writing"):
        FileLock(tmp_path / "lock", what="the file")
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    FileLock(tmp_path / "lock", what="the file").release()


def test_who_only_looks_whether_a_file_is_locked_keeps_no_one_from_locking_it(tmp_path):
    path, done = tmp_path / "lock", threading.Event()

    def look() -> None:
        while not done.is_set():
            is_locked(path)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(300):
            path.touch()
            FileLock(path, what="a").release()
    finally:
        done.set()
        for looker in lookers:
            looker.join()


def test_a_lock_that_may_not_be_looked_at_is_named_and_not_taken_for_a_free_one(tmp_path):
    path = tmp_path / "lock"
    lock = FileLock(path, what="a")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match=r"its lock cannot be used \(Permission denied\)"):
            is_locked(path)
    finally:
        os.seteuid(user)
        lock.release()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    """No file system here lacks them, so the kernel's answer of one that does is given."""

    def refuse(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path = tmp_path / "lock"
    path.touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    for use in (is_locked, lambda path: FileLock(path, what="a")):
        with pytest.raises(StoreError, match=r"its lock cannot be used \(No locks available\)"):
            use(path)


def test_what_is_no_file_is_never_locked(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe")
    assert not is_locked(tmp_path / "none")
    assert not is_locked(tmp_path / "link")
    assert not is_locked(tmp_path / "pipe")
