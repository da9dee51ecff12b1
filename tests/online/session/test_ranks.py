"""Runs that several processes learn together, and what befalls one of them."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_runs import config, lines

from online.queue.server_process import ServerProcess
from online.session.start import train_on_store

pytestmark = pytest.mark.timeout(600)

RANKED_RUN = Path(__file__).parents[2] / "support" / "ranked_run.py"
EXACT = ("training.precision=float64", "training.steps=10", "evaluation.every_steps=1000")
FOUR = ("training.shards=4", "replay.fifo_bytes=122880", "replay.long_term_bytes=122880")
TWO = ("training.shards=2", "replay.fifo_bytes=61440", "replay.long_term_bytes=61440")
GONE_SECONDS = 60
"""Within which all ranks have ended after what happens to one of them."""


@dataclass
class Ranks:
    """Processes of a run, started by torchrun."""

    process: subprocess.Popen[bytes]
    out: Path

    def ended(self, seconds: float = 300) -> tuple[int, list[dict[str, Any]]]:
        """The exit code, and what each rank has told."""
        _, said = self.process.communicate(timeout=seconds)
        told = sorted(self.out.glob("rank-*.json"))
        assert told, said.decode()
        return self.process.returncode, [json.loads(path.read_text()) for path in told]

    def wait_for_step(self, step: int, rank: int = 0, seconds: float = 240) -> None:
        until = time.monotonic() + seconds
        path = self.out / f"step-{rank}"
        while not path.exists() or int(path.read_text() or 0) < step:
            assert time.monotonic() < until
            assert self.process.poll() is None
            time.sleep(0.02)


def start(
    size: int, source: Path | str, run: Path, *settings: str, fault: str = "none", restarts: int = 0
) -> Ranks:
    out = run.with_name(f"{run.name}-{size}-out")
    out.mkdir(exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    options = ["--nproc-per-node", str(size), "--max-restarts", str(restarts)]
    arguments = [RANKED_RUN, source, run, out, fault, *settings]
    environment = {
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "PYTHONPATH": os.pathsep.join([str(RANKED_RUN.parent), *sys.path]),
    }
    process = subprocess.Popen(
        [*launcher, *options, *map(str, arguments)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Ranks(process, out)


def shards(run: Path, step: int) -> Any:
    state = json.loads((run / "checkpoints" / f"step-{step:08}" / "state.json").read_text())
    return state["run"]["shards"]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run, "step")]


@pytest.mark.soak  # test_exchange compares single steps
@pytest.mark.usefixtures("unchecked_shapes")
def test_two_ranks_learn_what_one_process_learns(balls: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    short = (*EXACT, *TWO, "training.steps=3")
    train_on_store(balls, alone, config(*short))
    code, told = start(2, balls, together, *short).ended()
    assert code == 0, told
    assert losses(together) == pytest.approx(losses(alone), rel=1e-8)
    assert shards(together, 3) == shards(alone, 3)


@pytest.mark.soak
@pytest.mark.usefixtures("unchecked_shapes")
def test_four_ranks_and_then_two_learn_what_one_process_learns(balls: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    train_on_store(balls, alone, config(*EXACT, *FOUR))
    code, told = start(4, balls, together, *EXACT, *FOUR, "training.steps=5").ended()
    assert code == 0, told
    code, more = start(2, balls, together, *EXACT, *FOUR).ended()
    assert code == 0, more
    assert {each["step"] for each in more} == {10}
    assert shards(together, 10) == shards(alone, 10)  # cursors, buffers and the draws to come
    assert losses(together) == pytest.approx(losses(alone), rel=1e-8)
    inserted = lines(alone, "step")[-1]["clips_inserted"]
    assert lines(together, "step")[-1]["clips_inserted"] == inserted
    assert sum(len(each["ledger"]) for each in (*told, *more)) == inserted


@pytest.mark.soak
@pytest.mark.parametrize(
    ("fault", "settings", "reason"),
    [
        ("SIGTERM", ("training.steps=100000",), "stopped"),
        ("time", ("training.steps=100000",), "time is up"),
        ("stream ends", ("stream.max_epochs=1", "training.steps=100000"), "stream ended"),
        ("one triplet", ("stream.clip_length=1", "training.batch_clips=2"), "complete"),
    ],
)
def test_all_ranks_end_together(
    fault: str, settings: tuple[str, ...], reason: str, balls: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ranks = start(2, balls, run, *TWO, *settings, fault=fault)
    if fault == "SIGTERM":
        ranks.wait_for_step(3, rank=1)
    code, told = ranks.ended(GONE_SECONDS if fault == "SIGTERM" else 300)
    assert code == 0, told
    assert [each["reason"] for each in told] == [reason, reason]
    (step,) = {each["step"] for each in told}
    assert (run / "checkpoints" / f"step-{step:08}").exists()
    assert {each["inserted"] for each in told} == {sum(len(each["ledger"]) for each in told)}


@pytest.mark.soak
def test_weights_that_are_not_finite_on_one_end_all_and_are_not_saved(
    balls: Path, tmp_path: Path
) -> None:
    ranks = start(2, balls, tmp_path / "run", *TWO, "training.steps=100000", fault="NaN")
    ranks.wait_for_step(3)
    code, told = ranks.ended(GONE_SECONDS)
    assert code == 1
    assert all("Diverged: step 4: loss nan" in each["error"] for each in told)
    (line,) = (line for line in lines(tmp_path / "run", "event") if "batch" in line)
    assert len(line["batch"]) == 4  # of both


@pytest.mark.soak
def test_a_rank_that_is_killed_is_started_again_with_the_others(
    balls: Path, tmp_path: Path
) -> None:
    run, often = tmp_path / "run", "training.checkpoint_every_seconds=0.001"
    ranks = start(2, balls, run, *TWO, often, fault="SIGKILL", restarts=1)
    ranks.wait_for_step(3)
    code, told = ranks.ended(2 * GONE_SECONDS)
    assert code == 0, told
    assert [each["step"] for each in told] == [12, 12]
    assert [line["step"] for line in lines(run, "step")] == [*range(1, 13)]


@pytest.mark.soak
def test_ranks_wait_for_a_server_that_is_started_again(balls: Path, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/s"
    with ServerProcess(balls, bind=address):
        ranks = start(2, address, tmp_path / "run", *TWO, "training.steps=60")
        ranks.wait_for_step(3)
    with ServerProcess(balls, bind=address):
        code, told = ranks.ended(2 * GONE_SECONDS)
    assert code == 0, told
    assert [each["step"] for each in told] == [60, 60]


@pytest.mark.soak
def test_a_signal_to_the_launcher_saves_the_run(balls: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "setcon", "train", balls, "--run", run, "--ranks", "2"]
    process = subprocess.Popen(
        [*command, "--steps", "100000", "--set", "training.log_every_steps=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 240
    while not (run / "metrics.jsonl").exists() or len(lines(run, "step")) < 3:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, error = process.communicate(timeout=GONE_SECONDS)
    assert process.returncode == 128 + signal.SIGTERM, error.decode()
    assert b"saved; the same command continues" in said
    assert b"Traceback" not in error
