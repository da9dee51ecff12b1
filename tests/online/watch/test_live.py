"""Whether a run is at work is read off its files."""

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest
from made_runs import make_run

from online.runs.lock import RunLock
from online.watch.live import SILENT_SECONDS, LiveFile


def test_a_run_that_has_not_begun_is_absent(tmp_path: Path) -> None:
    assert LiveFile(tmp_path / "run").poll().activity == "absent"


def test_a_run_is_at_work_while_its_lock_is_held(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    live, lock = LiveFile(run), RunLock(run)
    (run / "status.json").write_text('{"step": 3}')
    assert live.poll().activity == "ended"  # a killed run leaves the file
    lock.take()
    assert (live.poll().activity, live.poll().status) == ("at work", {"step": 3})
    (run / "status.json").write_text('{"step": 3')
    assert live.poll().status == {}
    lock.release()
    (run / "status.json").unlink()
    assert live.poll().activity == "ended"


def test_where_locks_are_not_seen_a_run_is_at_work_while_its_status_changes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    now = [0.0]
    live = LiveFile(run, now=lambda: now[0])
    for step in range(3):
        (run / "status.json").write_text(json.dumps({"step": step}))
        found = live.poll()
        now[0] += 1
    assert (found.activity, found.status) == ("at work", {"step": 2})
    now[0] += SILENT_SECONDS
    assert live.poll().activity == "ended"


def test_a_run_of_this_machine_that_is_killed_has_ended_at_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    live, lock = LiveFile(run, now=lambda: 0.0), RunLock(run)
    lock.take()
    for step in range(3):
        (run / "status.json").write_text(json.dumps({"step": step}))
        assert live.poll().activity == "at work"
    (run / "status.json").write_text('{"step": 3}')
    lock.release()  # as the kernel does; the file stays
    assert live.poll().activity == "ended"
    (run / "status.json").write_text('{"step": 4}')  # another machine continues it
    assert live.poll().activity == "at work"


def test_where_locks_do_not_work_a_warning_says_so_and_changes_tell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    run = make_run(tmp_path / "run")
    (run / "lock").touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    live = LiveFile(run, now=lambda: 0.0)
    for step in range(3):
        (run / "status.json").write_text(json.dumps({"step": step}))
        found = live.poll()
    assert (found.activity, found.status) == ("at work", {"step": 2})
    assert caplog.text.count("No locks available") == 1
