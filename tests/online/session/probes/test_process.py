"""Probes alongside learning: real processes, real servers; and what remains when they end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shape_checks import without_shape_checks

from online.config import RunConfig, load_preset
from online.process import Child
from online.queue.server_process import ServerProcess
from online.runs.log import read_run
from online.scores.evaluation import Evaluation, load_evaluation, load_panels
from online.session.start import train_on_store
from online.session.status import Status

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

SMALL = (
    "training.steps=12",
    "training.batch_clips=4",
    "training.log_every_steps=1",
    "training.precision=float32",
    "replay.samples_per_insert=3",
    "replay.fifo_bytes=30720",  # 4 clips of 10 frames
    "replay.long_term_bytes=30720",
    "stream.clip_length=8",
    "stream.credit_bytes=100000",
    "evaluation.every_steps=6",
    "evaluation.train_clips=8",
    "evaluation.held_out_clips=4",
    "evaluation.panel_frames=2",
    "probe.steps=3",
)
BOUND = 60.0
PROBED = ["panels.npz", "probe.safetensors", "scores.json", "untrained.safetensors"]


def config(*settings: str) -> RunConfig:
    return load_preset("demo", [*SMALL, *settings])


BESIDE = config("evaluation.beside=true")


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["kind"] == kind]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def untimed(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, seconds=0.0)


class Halted(Child):
    """A probe process that never comes to its end."""

    started: list["Halted"]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.send_signal(signal.SIGSTOP)
        self.started.append(self)


@contextmanager
def halted() -> Iterator[list[Halted]]:
    """The probe processes that are started inside, none of which comes to its end."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Halted, "started", [], raising=False)
        patched.setattr("online.session.probes.process.Child", Halted)
        yield Halted.started


def stop_in_probe(status: Status) -> None:
    if status.beside:
        signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def stopped_in_probe(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    with halted(), without_shape_checks():
        stopped = train_on_store(balls, run, BESIDE, observe=stop_in_probe)
    assert (stopped.reason, stopped.step) == ("stopped", 7)
    assert files(run / "probes" / "step-00000006") == ["model.safetensors"]
    return run


@pytest.fixture
def put_off(stopped_in_probe: Path, tmp_path: Path) -> Path:
    """A run that was stopped at step 7, in the middle of the probe of step 6."""
    return shutil.copytree(stopped_in_probe, tmp_path / "put-off")


@pytest.fixture(scope="module")
def probed_in_place(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run that was probed at the steps 6 and 12, while it did not learn."""
    run = tmp_path_factory.mktemp("here") / "run"
    with without_shape_checks():
        assert train_on_store(balls, run, config()).step == 12
    return run


def test_a_probe_beside_learning_that_was_put_off_finds_what_one_in_its_place_does(
    balls: Path, probed_in_place: Path, put_off: Path
) -> None:
    here, beside = probed_in_place, put_off
    assert "put off" in lines(beside, "event")[-1]["message"]
    told: list[Status] = []
    done = train_on_store(balls, beside, BESIDE, observe=told.append)
    assert (done.reason, done.step) == ("complete", 12)
    assert any(status.beside.startswith("probe of step 6 ") for status in told)
    assert {status.activity for status in told} >= {"learning", "starting the probe"}
    for step in (6, 12):
        ours, theirs = (run / "probes" / f"step-{step:08}" for run in (beside, here))
        assert files(ours) == files(theirs) == PROBED
        assert untimed(load_evaluation(ours)) == untimed(load_evaluation(theirs))
        panels = [load_panels(folder) for folder in (ours, theirs)]
        for name in ("reconstruction", "predicted", "untrained", "slots", "alphas", "attention"):
            np.testing.assert_array_equal(*(getattr(found, name) for found in panels))
    for name in ("loss", "grad_norm", "top1"):
        learned = [[step[name] for step in lines(run, "step")] for run in (beside, here)]
        assert learned[0] == learned[1]
    assert [(p["step"], p["beside"]) for p in lines(beside, "probe")] == [(6, True), (12, True)]
    assert "alongside learning" in (beside / "report.html").read_text()
    spent = read_run(here).spent
    assert spent is not None
    assert done.spent is not None
    assert 0 < (spent.probe_share or 0) < 1
    assert f"for probes for {spent.probe_share:.1%}" in (here / "report.html").read_text()


def test_a_probe_process_that_dies_is_reported_and_learning_goes_on(
    balls: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ("evaluation.beside=true", "evaluation.every_steps=5")
    with halted() as started:

        def kill_later(status: Status) -> None:
            if status.step >= 11:
                started[-1].kill()

        outcome = train_on_store(balls, tmp_path / "run", config(*settings), observe=kill_later)
    assert (outcome.reason, outcome.step, outcome.evaluation) == ("complete", 12, None)
    assert files(tmp_path / "run" / "probes") == []
    assert all(process.returncode == -signal.SIGKILL for process in started)
    skipped, *died = caplog.messages
    assert skipped.startswith("no probe at step 10: that of step 5 was still being made")
    assert died == [
        f"no probe at step {step}: its process was killed by SIGKILL" for step in (5, 12)
    ]
    assert len(lines(tmp_path / "run", "event")) == 3


def test_what_was_put_off_is_said_to_be_dropped_where_probes_are_no_longer_made_beside(
    balls: Path, put_off: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = put_off
    left = run / "probes" / "step-00000006" / ".panels.npz.0.partial"
    left.write_bytes(b"half")  # of a probe that was killed
    train_on_store(balls, run, config("training.steps=7"))
    assert files(run / "probes") == ["step-00000007"]
    assert [m for m in caplog.messages if "step 6" in m] == [
        "no probe at step 6: it was cut off, and evaluation.beside is off now"
    ]


@pytest.mark.parametrize("beside", [True, False])
def test_what_was_found_as_a_run_was_stopped_is_logged_by_the_next_start(
    balls: Path, probed_in_place: Path, put_off: Path, beside: bool
) -> None:
    here, run = probed_in_place, put_off
    where = "probes/step-00000006"
    shutil.copytree(here / where, run / where, dirs_exist_ok=True)
    train_on_store(balls, run, config("training.steps=7", f"evaluation.beside={beside}".lower()))
    assert files(run / where) == PROBED
    assert [(p["step"], p["beside"]) for p in lines(run, "probe")] == [(6, True), (7, beside)]


def test_the_process_leaves_in_the_middle_of_a_probe_when_its_trainer_is_killed(
    balls: Path, put_off: Path
) -> None:
    run = put_off
    settings = run / "config.toml"
    settings.write_text(settings.read_text().replace("steps = 3\n", "steps = 1000000\n"))
    with ServerProcess(balls) as server:
        program = f"""
            import time
            from online.process import Child
            child = Child("online.session.probes.process", [{str(run)!r}, "cpu"])
            child.tell({json.dumps([{"address": server.address, "keys": None}])!r})
            child.tell("6")
            while "probing" not in (said := " ".join(child.lines({BOUND}))):
                assert said
            print(child.pid, flush=True)
            time.sleep({BOUND})
        """
        trainer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
        )
        assert trainer.stdout is not None
        pid = int(trainer.stdout.readline())
        assert is_running(pid)
        trainer.kill()
        trainer.communicate()
        deadline = time.monotonic() + BOUND
        while is_running(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
