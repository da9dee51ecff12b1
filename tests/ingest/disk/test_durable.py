import errno
import os
import threading
from pathlib import Path

import pytest

from ingest.disk.durable import (
    FileLock,
    clear_write_errors,
    is_locked,
    remove_partial_files,
    write_whole,
)
from ingest.errors import RecordingLockedError, StorageFullError, StoreError


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "a"
    write_whole(path, b"one")
    with path.open("rb") as before:
        write_whole(path, b"two")
        assert before.read() == b"one"
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        write_whole(path, b"a file cannot replace a folder")
    assert names(tmp_path) == ["folder"]


def test_half_written_files_are_cleared_away(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".x.123.partial").touch()
    (tmp_path / "deep" / "x").touch()
    remove_partial_files(tmp_path)
    assert names(tmp_path / "deep") == ["x"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_from_other_errors(code):
    full, denied = (OSError(c, os.strerror(c)) for c in (code, errno.EACCES))
    with (
        pytest.raises(StorageFullError, match=r"here: the .* exhausted.*free some space"),
        clear_write_errors("here"),
    ):
        raise full
    with (
        pytest.raises(StoreError, match="here: cannot write") as caught,
        clear_write_errors("here"),
    ):
        raise denied
    assert not isinstance(caught.value, StorageFullError)


def test_a_lock_is_held_by_one_and_leaves_no_file(tmp_path):
    lock = FileLock(tmp_path / "lock", what="the thing")
    with pytest.raises(RecordingLockedError, match=f"the thing: process {os.getpid()} is writing"):
        FileLock(tmp_path / "lock", what="the thing")
    lock.release()
    lock.release()
    assert names(tmp_path) == []
    FileLock(tmp_path / "lock", what="the thing").release()


def test_a_peer_that_does_not_answer_is_no_trouble_with_a_disk():
    with pytest.raises(TimeoutError, match="no answer"), clear_write_errors("run"):
        raise TimeoutError("no answer")


def test_who_only_looks_whether_a_file_is_locked_keeps_nobody_from_locking_it(tmp_path):
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
