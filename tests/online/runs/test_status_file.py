import os
from dataclasses import dataclass
from pathlib import Path

from online.runs.status_file import StatusFile, read_status


@dataclass(frozen=True, slots=True)
class Moment:
    step: int
    loss: float | None = None


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
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_what_is_not_finite_can_be_read(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "status.json")
    file(Moment(1, float("nan")))
    assert read_status(file.path) == {"step": 1, "loss": None}


def test_a_run_that_ends_takes_its_file_with_it(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "status.json")
    file(Moment(1))
    file.close()
    file.close()
    assert read_status(file.path) is None
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_says_nothing_after_a_while(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "status.json")
    file(Moment(1))
    assert read_status(file.path, max_age_seconds=60.0) == {"step": 1, "loss": None}
    os.utime(file.path, (0, 0))
    assert read_status(file.path, max_age_seconds=60.0) is None
