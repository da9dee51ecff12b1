"""What safety costs a run: the time of a checkpoint, and from a kill to the next optimizer step.

    python benchmarks/training/checkpoint.py save [--rounds 9] [--folder DIR]
    python benchmarks/training/checkpoint.py resume [--kills 5] [--folder DIR]
    python benchmarks/training/checkpoint.py same [--kills 6] [--steps 1000] [--folder DIR]

`save` writes checkpoints of the small model of the demo and of the large one of three-object (no
step is trained: Adam's moments are filled), each after the disk has come to rest, and says how much
of it is waiting for the disk. `resume` trains with the real command on a small store, kills it
with SIGKILL, starts it again at once, and takes the time from the kill until the first step after
it is in the log. `same` kills a run of --steps steps, by turns while it learns and in the middle
of a probe, and compares all that it has logged with a run that was left alone. DIR decides which
disk is measured.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from online.config import load_preset
from online.runs.checkpoint import Checkpoint, save_checkpoint
from online.runs.rng import rng_state
from online.session.state import new_trainer
from online.training.trainer import Trainer

EVERY_SECONDS = 60.0
FAST = [
    *("--set", "training.log_every_steps=1"),
    *("--set", "training.checkpoint_every_seconds=2"),
    *("--steps", "1000000"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="What safety costs a run.")
    parser.add_argument("what", choices=["save", "resume", "same"])
    parser.add_argument("--rounds", type=int, default=9, help="checkpoints of each model")
    parser.add_argument("--kills", type=int, default=5, help="times the run is killed")
    parser.add_argument("--steps", type=int, default=1000, help="of each run, for same")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.what == "save":
            for preset in ("demo", "three-object"):
                measure_saving(preset, Path(folder) / preset, options.rounds)
        elif options.what == "resume":
            measure_resuming(Path(folder), options.kills)
        else:
            compare_killed(Path(folder), options.kills, options.steps)


def measure_saving(preset: str, folder: Path, rounds: int) -> None:
    """Print the medians of saving the preset's model."""
    trainer = _filled_trainer(preset)
    walls, waits, path = [], [], folder
    for step in range(rounds + 1):
        os.sync()  # what earlier rounds left in memory is not this one's to wait for
        checkpoint = Checkpoint(
            step=step,
            model=trainer.model.state_dict(),
            optimizer=trainer.optimizer.state_dict(),
            run={},
            replay={},
            rng=rng_state(),
        )
        with _timed_fsync() as fsyncs:
            began = time.perf_counter()
            path = save_checkpoint(folder, checkpoint, keep=2)
            walls.append(time.perf_counter() - began)
        waits.append(sum(fsyncs))
    size = sum(file.stat().st_size for file in path.iterdir())
    wall, wait = statistics.median(walls[1:]), statistics.median(waits[1:])
    print(
        f"{preset}: {size / 1e6:.1f} MB in {wall:.3f} s ({min(walls[1:]):.3f} to "
        f"{max(walls[1:]):.3f}), of which fsync {wait:.3f} s; "
        f"{wall / EVERY_SECONDS:.2%} of the time at one a minute"
    )


def _filled_trainer(preset: str) -> Trainer:
    trainer = new_trainer(load_preset(preset), torch.device("cpu"))
    for parameter in trainer.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    trainer.optimizer.step()
    return trainer


@contextmanager
def _timed_fsync() -> Iterator[list[float]]:
    taken: list[float] = []
    fsync = os.fsync

    def timed(descriptor: int) -> None:
        began = time.perf_counter()
        fsync(descriptor)
        taken.append(time.perf_counter() - began)

    os.fsync = timed
    try:
        yield taken
    finally:
        os.fsync = fsync


def measure_resuming(folder: Path, kills: int) -> None:
    """Print how long each of `kills` kills kept a run from learning."""
    store, run = folder / "store", folder / "run"
    _setcon("scene", "balls", folder / "balls.mp4", "--frames", 1200)
    _setcon("ingest", folder / "balls.mp4", store, "--size", 32)
    command = _command("train", store, "--run", run, *FAST)
    trainer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _await_step(run, start=1, trainer=trainer)
    seconds: list[float] = []
    for kill in range(kills):
        time.sleep(6.0)  # to another checkpoint, and a fuller replay
        began = time.perf_counter()
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        trainer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _await_step(run, start=kill + 2, trainer=trainer)
        seconds.append(time.perf_counter() - began)
        print(f"kill {kill + 1}: {seconds[-1]:.2f} s to the next step", flush=True)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    print(f"median {statistics.median(seconds):.2f} s, most {max(seconds):.2f} s")


def compare_killed(folder: Path, kills: int, steps: int) -> None:
    """Print whether a run that was killed has logged what one that was left alone has."""
    store = folder / "store"
    _setcon("scene", "balls", folder / "balls.mp4", "--frames", 1200)
    _setcon("ingest", folder / "balls.mp4", store, "--size", 16)
    settings = [
        *("training.log_every_steps=1", "training.checkpoint_every_seconds=1"),
        *("training.batch_clips=4", "evaluation.every_steps=100", "probe.steps=300"),
        *("replay.samples_per_insert=4", "replay.long_term=minred"),
    ]
    more = [word for setting in settings for word in ("--set", setting)]
    train = _command("train", store, "--steps", steps, *more, "--run")
    alone, killed = folder / "alone", folder / "killed"
    began = time.perf_counter()
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*train, str(alone)], check=True, **quiet)
    taken = time.perf_counter() - began
    in_probes = 0
    for kill in range(kills):
        goal = (kill + 1) * steps // (kills + 1)
        trainer = subprocess.Popen([*train, str(killed)], **quiet)
        while trainer.poll() is None and not _is_time(killed, goal, in_probe=kill % 2 == 1):
            time.sleep(0.01)
        if trainer.poll() is not None:
            raise SystemExit(f"the trainer ended with code {trainer.returncode}")
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        in_probes += kill % 2
        print(f"killed after step {_logged(killed)[-1]['step']}", flush=True)
    subprocess.run([*train, str(killed)], check=True, **quiet)
    ours, theirs = _learned(killed), _learned(alone)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    print(
        f"{kills} kills, {in_probes} of them within a probe: {same} of {len(theirs)} lines of "
        f"losses, scores of new clips and probes are the same; alone it took {taken:.0f} s"
    )


def _is_time(run: Path, goal: int, *, in_probe: bool) -> bool:
    logged = _logged(run)
    if not logged or logged[-1]["step"] < goal:
        return False
    last = logged[-1]
    return not in_probe or (last["kind"] == "step" and last["step"] % 100 == 0)


def _logged(run: Path) -> list[dict[str, Any]]:
    log = run / "metrics.jsonl"
    lines = log.read_bytes().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if _kind(line) in ("step", "prequential", "probe")]


def _learned(run: Path) -> list[dict[str, Any]]:
    """All that is logged, but for what depends on the clock; and what the probes found."""
    kept = ("kind", "step", "loss", "top1", "grad_norm", "top1_untrained", "top1_copy")
    lines = [{key: line[key] for key in kept if key in line} for line in _logged(run)]
    for scores in sorted((run / "probes").glob("*/scores.json")):
        found = json.loads(scores.read_text())
        del found["seconds"]
        lines.append(found)
    return lines


def _await_step(run: Path, *, start: int, trainer: subprocess.Popen[bytes]) -> None:
    """Wait for the first step after the line that the run's start number `start` begins with."""
    log = run / "metrics.jsonl"
    while trainer.poll() is None:
        kinds = [_kind(line) for line in log.read_bytes().splitlines()] if log.exists() else []
        starts = [at for at, kind in enumerate(kinds) if kind == "source"]
        if len(starts) >= start and "step" in kinds[starts[start - 1] :]:
            return
        time.sleep(0.02)
    raise SystemExit(f"the trainer ended with code {trainer.returncode}")


def _kind(line: bytes) -> str:
    try:
        return json.loads(line)["kind"]
    except ValueError:
        return ""  # the end of a log that is being written


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "setcon", *map(str, arguments)]


def _setcon(*arguments: object) -> None:
    subprocess.run(_command(*arguments), check=True, stdout=subprocess.DEVNULL, stderr=2)


if __name__ == "__main__":
    main()
