import threading
from pathlib import Path

import pytest

from online.errors import RunError
from online.runs.lock import RunLock, is_at_work


def test_one_trainer_is_at_work_at_a_time(tmp_path: Path) -> None:
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    assert not is_at_work(tmp_path)
    first.take()
    assert is_at_work(tmp_path)
    with pytest.raises(RunError, match="another trainer is at work"):
        second.take()
    first.release()
    assert not is_at_work(tmp_path)
    second.take()
    second.release()


def test_who_only_looks_keeps_no_trainer_out(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.take()
    lock.release()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            is_at_work(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(300):
            lock.take()
            lock.release()
    finally:
        done.set()
        looking.join()
