import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from online.runs.lock import RunLock
from online.runs.status_file import StatusFile, read_status


@dataclass(frozen=True, slots=True)
class Moment:
    step: int
    loss: float | None = None
    activity: str = "learning"


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[RunLock]:
    lock = RunLock(tmp_path)
    lock.take()
    yield lock
    lock.release()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("lock")
def test_the_file_holds_the_latest_and_is_replaced_once_a_second_at_most(tmp_path: Path) -> None:
    times = iter([0.0, 0.4, 0.9, 1.0, 1.5, 2.1])
    file = StatusFile(tmp_path / "status.json", now=lambda: next(times))
    seen: list[int] = []
    for step in range(6):
        file(Moment(step))
        found = read_status(file.path)
        assert found is not None
        seen.append(found["step"])
    assert seen == [0, 0, 0, 3, 3, 5]
    assert files(tmp_path) == ["lock", "status.json"]


@pytest.mark.usefixtures("lock")
def test_another_activity_is_written_at_once(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "status.json", now=lambda: 0.0)
    file(Moment(1))
    file(Moment(2, activity="probing"))
    file(Moment(3, activity="probing"))
    found = read_status(file.path)
    assert found is not None
    assert (found["step"], found["activity"]) == (2, "probing")


@pytest.mark.usefixtures("lock")
def test_what_is_not_finite_can_be_read(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "status.json")
    file(Moment(1, float("nan")))
    assert read_status(file.path) == {"step": 1, "loss": None, "activity": "learning"}


@pytest.mark.usefixtures("lock")
def test_a_run_that_ends_takes_its_file_with_it(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "status.json")
    file(Moment(1))
    file.close()
    file.close()
    assert read_status(file.path) is None
    assert files(tmp_path) == ["lock"]


def test_a_silent_run_is_alive_and_a_killed_one_is_not(tmp_path: Path, lock: RunLock) -> None:
    StatusFile(tmp_path / "status.json")(Moment(1))
    assert read_status(tmp_path / "status.json") is not None
    lock.release()  # as the kernel does for a killed process
    assert read_status(tmp_path / "status.json") is None


@pytest.mark.usefixtures("lock")
def test_what_a_killed_run_left_half_written_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / ".status.json.partial"
    left.write_bytes(b'{"step"')
    StatusFile(tmp_path / "status.json")(Moment(1))
    assert files(tmp_path) == ["lock", "status.json"]


def test_a_file_that_cannot_be_written_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = StatusFile(tmp_path / "missing" / "status.json")
    with caplog.at_level(logging.WARNING):
        file(Moment(1))
        file(Moment(2, activity="probing"))
    (said,) = caplog.messages
    assert "status.json: cannot be written" in said
    file.close()
