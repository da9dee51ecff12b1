"""From a video file to a report over real processes, with the trainer killed on the way."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SETTINGS = [
    *("--steps", "40"),
    *("--set", "training.batch_clips=4"),
    *("--set", "training.log_every_steps=1"),
    *("--set", "training.checkpoint_every_seconds=0.2"),
    *("--set", "stream.clip_length=8"),
    *("--set", "stream.credit_bytes=100000"),
    *("--set", "replay.samples_per_insert=4"),
    *("--set", "probe.steps=3"),
    *("--set", "evaluation.train_clips=6"),
    *("--set", "evaluation.held_out_clips=3"),
]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "setcon", *map(str, arguments)]


def losses(run: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(e["step"], e["loss"], e["grad_norm"]) for e in lines if e["kind"] == "step"]


def steps_logged(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count('"kind": "step"') if path.exists() else 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("end_to_end")
    video, store = folder / "sprites.mp4", folder / "store"
    for arguments in (
        ["scene", "sprites", video, "--frames", "240", "--seed", "3"],
        ["ingest", video, store, "--size", "24x16", "--format", "h5"],
    ):
        subprocess.run(command(*arguments), check=True, timeout=100)
    return store


@pytest.mark.soak
def test_a_killed_trainer_continues_and_logs_the_same_losses(store: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command("train", store, "--run", whole, *SETTINGS), check=True, timeout=150)
    for steps in (8, 24):
        trainer = subprocess.Popen(command("train", store, "--run", killed, *SETTINGS))
        deadline = time.monotonic() + 100
        while steps_logged(killed) < steps:
            assert trainer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        trainer.send_signal(signal.SIGKILL)
        assert trainer.wait(timeout=60) == -signal.SIGKILL
    subprocess.run(command("train", store, "--run", killed, *SETTINGS), check=True, timeout=150)
    assert losses(killed) == losses(whole)
    assert [step for step, _, _ in losses(killed)] == list(range(1, 41))
    assert (killed / "report.html").read_text().count("FG-ARI") > 0


def test_a_terminated_trainer_saves_and_says_how_to_go_on(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer = subprocess.Popen(
        command("train", store, "--run", run, *SETTINGS), stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 100
    while steps_logged(run) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    trainer.send_signal(signal.SIGTERM)
    out, _ = trainer.communicate(timeout=60)
    assert trainer.returncode == 128 + signal.SIGTERM
    assert "saved; the same command continues" in out
