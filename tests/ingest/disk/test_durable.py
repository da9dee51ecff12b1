import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.disk import durable
from ingest.disk.durable import (
    clear_write_errors,
    make_folder,
    partial_file,
    remove_folder,
    remove_partial_files,
    write_whole,
    written_file,
    written_folder,
)
from ingest.errors import StorageFullError, StoreError


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
        assert names(tmp_path) == [partial.name, "a.h5"]
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


STEPS = [(Path, "rename", 1), (Path, "rename", 2), (durable, "sync_folder", 2)]
"""The old folder is hidden, the new one gets its name, and both are synced."""


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("is_done", [False, True])
def test_a_step_that_fails_leaves_the_old_folder_or_the_new_one(
    tmp_path, monkeypatch, error, step, is_done
):
    path = tmp_path / "step-1"
    with written_folder(path) as folder:
        (folder / "old").touch()
    with monkeypatch.context() as patch:
        patch.setattr(*failing(*step, error(), is_done=is_done))
        with pytest.raises(error), written_folder(path) as folder:
            (folder / "new").touch()
    assert names(path) in (["old"], ["new"])
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(("step", "left"), list(zip(STEPS, ["old", None, "new"], strict=True)))
def test_a_kill_between_the_steps_leaves_both_folders_whole(tmp_path, monkeypatch, step, left):
    path = tmp_path / "step-1"
    with written_folder(path) as folder:
        (folder / "old").touch()

    def replace() -> None:
        monkeypatch.setattr(*failing(*step, None, is_done=False))
        with written_folder(path) as folder:
            (folder / "new").touch()

    run_until_killed(replace)
    held = sorted(names(folder) for folder in tmp_path.iterdir())
    assert held == [["new"], ["old"]]
    assert (names(path) if path.exists() else None) == (left and [left])


def run_until_killed(work: Callable[[], None]) -> None:
    """Do something in a fork, which it must be killed by."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def failing(
    owner: Any, name: str, call: int, error: BaseException | None, *, is_done: bool
) -> tuple[Any, str, Callable[..., Any]]:
    """A function that fails at one of its calls, before or after its work; by a kill for None."""
    work, calls = getattr(owner, name), 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        result = work(*arguments) if calls != call or is_done else None
        if calls == call:
            if error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise error
        return result

    return owner, name, counted


def test_a_folder_is_removed_whole_or_stays(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.mkdir()
    (path / "x").touch()
    with monkeypatch.context() as patch:
        patch.setattr(*failing(durable, "sync_folder", 1, OSError("injected"), is_done=False))
        with pytest.raises(OSError, match="injected"):
            remove_folder(path)
    assert names(path) == ["x"]
    remove_folder(path)
    remove_folder(path)
    assert names(tmp_path) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    mine = tmp_path / "a.partial"
    mine.write_bytes(b"a user's own")
    with partial_file(tmp_path / "a") as first, partial_file(tmp_path / "a") as second:
        first.write_bytes(b"one")
        second.write_bytes(b"two")
        first.replace(tmp_path / "a")
        assert second.read_bytes() == b"two"
    assert (tmp_path / "a").read_bytes() == b"one"
    assert mine.read_bytes() == b"a user's own"
    assert names(tmp_path) == ["a", "a.partial"]


def test_the_next_writer_deletes_what_a_killed_one_left(tmp_path):
    def write() -> None:
        with partial_file(tmp_path / "a") as partial:
            partial.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    run_until_killed(write)
    (left,) = tmp_path.iterdir()
    (tmp_path / left.name.replace(".a.", ".b.")).touch()
    with partial_file(tmp_path / "a"):
        assert names(tmp_path) == [left.name.replace(".a.", ".b.")]


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


def test_a_peer_that_does_not_answer_is_no_trouble_with_a_disk():
    with pytest.raises(TimeoutError, match="no answer"), clear_write_errors("run"):
        raise TimeoutError("no answer")
