import errno
import os
import threading
from pathlib import Path

import pytest

from ingest.disk.durable import (
    FileLock,
    clear_write_errors,
    is_locked,
    make_folder,
    partial_file,
    remove_partial_files,
    write_whole,
    written_file,
    written_folder,
)
from ingest.errors import RecordingLockedError, StorageFullError, StoreError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def file_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


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


def test_a_file_that_another_program_fills_is_renamed_when_it_is_whole(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")
    with written_file(path) as partial:
        partial.write_bytes(b"new")
        assert names(tmp_path) == ["a.h5", "a.h5.partial"]
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(FileNotFoundError), written_file(path):
        pass  # nothing was written
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.h5"]


def test_what_a_partial_file_was_renamed_to_stays(tmp_path):
    with partial_file(tmp_path / "a") as partial:
        partial.write_bytes(b"whole")
        partial.replace(tmp_path / "b")
    with partial_file(tmp_path / "c"):
        pass  # nothing was written
    assert names(tmp_path) == ["b"]


def test_a_folder_is_replaced_by_a_whole_one_or_stays(tmp_path):
    path = tmp_path / "step-1"
    for content in ("old", "new"):
        with written_folder(path) as folder:
            (folder / content).touch()
            (folder / "deep").mkdir()
            (folder / "deep" / "x").touch()
        assert names(path) == sorted([content, "deep"])
    with pytest.raises(FileNotFoundError), written_folder(path) as folder:
        (folder / "half" / "x").touch()
    assert names(path) == ["deep", "new"]
    assert names(tmp_path) == ["step-1"]


def test_what_a_written_folder_holds_is_synced_before_its_name(tmp_path, monkeypatch):
    synced: list[tuple[str, bool]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        path = file_of(descriptor)
        synced.append((path.name, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", watched)
    with written_folder(tmp_path / "a") as folder:
        (folder / "x").write_bytes(b"x")
    assert synced == [("x", False), (folder.name, False), (tmp_path.name, True)]


def test_folders_that_are_made_are_synced_into_those_above(tmp_path, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(file_of(descriptor)))
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    make_folder(tmp_path / "c", durable=False)
    assert (tmp_path / "c").is_dir()
    assert len(synced) == 2


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
    lock = FileLock(tmp_path / "lock", what="the file")
    with pytest.raises(RecordingLockedError, match=f"the file: process {os.getpid()} is writing"):
        FileLock(tmp_path / "lock", what="the file")
    lock.release()
    lock.release()
    assert names(tmp_path) == []
    FileLock(tmp_path / "lock", what="the file").release()


def test_a_peer_that_does_not_answer_is_no_trouble_with_a_disk():
    with pytest.raises(TimeoutError, match="no answer"), clear_write_errors("run"):
        raise TimeoutError("no answer")


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
