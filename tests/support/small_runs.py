"""A configuration that learns for a second or two, and what a run has written."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from online.config import RunConfig, load_preset
from online.session.outcome import Outcome
from online.session.status import Status

SMALL = (
    "training.steps=12",
    "training.batch_clips=4",
    "training.log_every_steps=1",
    "training.precision=float32",
    "training.prequential_candidates=8",
    "training.prequential_gap_seconds=1",
    "replay.samples_per_insert=3",
    "replay.fifo_bytes=30720",  # 4 clips of 10 frames
    "replay.long_term_bytes=30720",
    "stream.clip_length=8",
    "stream.credit_bytes=100000",  # by default thousands of such clips are sent ahead
    "evaluation.train_clips=8",
    "evaluation.held_out_clips=4",
    "evaluation.panel_frames=2",
    "probe.steps=3",
)
RUINOUS = ("optimizer.learning_rate=1e30", "optimizer.warmup_steps=0")

Learn = Callable[..., Outcome]
"""Called with a run's directory, its configuration, and options as `train_on_store` has them."""


def config(*settings: str) -> RunConfig:
    return load_preset("demo", [*SMALL, *settings])


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in every if line["kind"] == kind]


def learned(run: Path) -> list[Any]:
    """All that must not depend on interruptions: losses, gradients, scores of new clips."""
    steps = [(s["step"], s["loss"], s["top1"], s["grad_norm"]) for s in lines(run, "step")]
    new = [(p["step"], p["top1"], p["top1_untrained"]) for p in lines(run, "prequential")]
    return [*steps, *new]


def stop_at(step: int) -> Callable[[Status], None]:
    def observe(status: Status) -> None:
        if status.step == step and status.activity == "learning":
            signal.raise_signal(signal.SIGTERM)

    return observe


def damage(run: Path, step: int, file: str = "model.safetensors") -> Path:
    path = run / "checkpoints" / f"step-{step:08}"
    (path / file).write_bytes((path / file).read_bytes()[:-100])
    return path
