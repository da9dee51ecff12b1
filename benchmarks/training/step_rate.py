"""How long a training step takes on a GPU: kernels launched one by one, or recorded and replayed.

    python benchmarks/training/step_rate.py [--rounds 40]

Each row is a preset as it is on frames of the size it is for, with clips of random pixels that are
in memory already: forward, loss, backward, Adam, and what a run logs of it. Both ways take the same
steps in turn, one each per round, in one process; times are medians. "busy" is how long the GPU had
anything to do in a step, by the profiler.
"""

import argparse
import statistics
import time

import torch
from noise import noise
from torch.profiler import ProfilerActivity, profile

from online.config import load_preset
from online.session.state import new_trainer
from online.training.batch import Batch
from online.training.models import set_determinism
from online.training.trainer import Trainer

ROWS = (
    ("demo", 32, ()),
    ("demo", 32, ("training.batch_clips=48",)),
    ("demo", 32, ("training.batch_clips=128",)),
    ("balls", 32, ()),
    ("gridworld", 5, ()),
    ("tabletop", 64, ()),
)
WARM_UP = 5


def trainer(preset: str, settings: tuple[str, ...], *, recorded: bool) -> Trainer:
    """A new one of these settings."""
    config = load_preset(preset, [*settings, f"training.cuda_graphs={str(recorded).lower()}"])
    set_determinism(config.training)
    return new_trainer(config, torch.device("cuda"))


def seconds(learner: Trainer, batch: Batch) -> float:
    """Seconds of one step, until the GPU has finished its work."""
    began = time.perf_counter()
    learner.step(batch)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def busy_seconds(learner: Trainer, batch: Batch) -> tuple[float, int]:
    """Seconds for which the GPU is busy in a step, and in how many kernels."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        learner.step(batch)
        torch.cuda.synchronize()
    kernels = [event for event in profiler.events() or () if event.device_time > 0]
    return sum(event.device_time for event in kernels) / 1e6, len(kernels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps on a GPU, one by one and recorded.")
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA device")
    print(torch.cuda.get_device_name(), torch.__version__)
    print(
        f"{'ms per step':34}{'clips':>8}{'one by one':>12}{'recorded':>12}{'ratio':>8}{'busy':>8}"
    )
    for preset, size, settings in ROWS:
        config = load_preset(preset, settings)
        given = [noise(config, size) for _ in range(4)]
        ways = [trainer(preset, settings, recorded=recorded) for recorded in (False, True)]
        for _ in range(WARM_UP):
            for learner in ways:
                learner.step(given[0])
        took = [[seconds(w, given[i % len(given)]) for w in ways] for i in range(rounds)]
        one_by_one, recorded = (statistics.median(way) for way in zip(*took, strict=True))
        busy, kernels = busy_seconds(ways[1], given[0])
        name, clips = f"{preset}, {kernels} kernels", len(given[0].frames)
        print(
            f"{name:34}{clips:>8}{1e3 * one_by_one:>12.2f}{1e3 * recorded:>12.2f}"
            f"{one_by_one / recorded:>8.1f}{1e3 * busy:>8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
