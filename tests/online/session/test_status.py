"""A run's status is in its directory while it goes on."""

from pathlib import Path

import pytest
from small_runs import Learn, config, lines

from online.errors import Diverged
from online.runs.status_file import read_status
from online.session.status import Status

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_status_json_is_there_while_a_run_goes_on_and_gone_when_it_has_ended(
    learn: Learn, tmp_path: Path
) -> None:
    file = tmp_path / "run" / "status.json"
    seen: list[tuple[Status, dict[str, object] | None]] = []
    learn(
        tmp_path / "run",
        config("training.steps=3"),
        observe=lambda status: seen.append((status, read_status(file))),
    )
    told, written = seen[0]
    assert written is not None
    assert written["activity"] == told.activity == "connecting"
    assert all(found is not None for _, found in seen)
    assert not file.exists()


def test_status_json_is_gone_when_a_run_has_failed(learn: Learn, tmp_path: Path) -> None:
    ruinous = config("optimizer.learning_rate=1e30", "optimizer.warmup_steps=0")
    with pytest.raises(Diverged):
        learn(tmp_path / "run", ruinous)
    assert not (tmp_path / "run" / "status.json").exists()
    (*_, event) = lines(tmp_path / "run", "event")
    assert event["batch"]
