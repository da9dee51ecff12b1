"""How much faster several ranks take a training step than one.

    python benchmarks/training/ranks.py [--preset tabletop] [--size 64] [--rounds 40]

On CPUs two ranks have one thread each, on a core each; where there are several GPUs the table has a
row for 2, 4, ... of them. Steps are of clips of random pixels that are in memory already, in one
run: by turns one rank alone, all ranks on the same batch, which they share, and all ranks on a
batch that is as many times as large. Times are medians of rank 0; "efficiency" is triplets/s over
those of as many ranks that exchange nothing: n times one alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from noise import noise
from torch.distributed import FileStore, Store  # type: ignore[attr-defined]

from online.config import RunConfig, load_preset
from online.session.state import new_trainer
from online.training.batch import Batch
from online.training.exchange import Exchange
from online.training.models import set_determinism
from online.training.trainer import Trainer

WARM_UP = 3
WAIT_SECONDS = 0.002
"""How often a rank that has no part in a step looks whether it is over."""

Step = Callable[[], object]


def part(config: RunConfig, size: int, *, clips: int, rank: int) -> Batch:
    """Clips `rank * clips` and on of a batch."""
    torch.manual_seed(rank)
    whole = noise(config, size)
    times = -(-clips // len(whole.frames))
    return Batch(
        whole.frames.repeat(times, 1, 1, 1, 1)[:clips], whole.valid.repeat(times, 1)[:clips]
    )


def shared_step(learner: Trainer, batch: Batch, ranks: int) -> Step:
    """A step on a batch of which each rank has as many clips."""
    lengths = [[batch.frames.shape[1]] * len(batch.frames)] * ranks
    return lambda: learner.step(batch, lengths=lengths)


def seconds(step: Step, device: torch.device) -> float:
    """Seconds of one step, until the device has finished its work."""
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def wait(store: Store, key: str) -> None:
    """Leave the cores to others until `key` is set."""
    while not store.check([key]):
        time.sleep(WAIT_SECONDS)


def rank_main(arguments: argparse.Namespace, rank: int, ranks: int, folder: Path) -> None:
    """Take the steps of one rank; rank 0 prints the row."""
    has_gpus = torch.cuda.is_available()
    device = torch.device("cuda", rank) if has_gpus else torch.device("cpu")
    if has_gpus:
        torch.cuda.set_device(device)
    store = FileStore(str(folder / "store"), ranks)
    backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks)
    config = load_preset(arguments.preset, ["training.cuda_graphs=false", "training.threads=1"])
    set_determinism(config.training)
    clips = config.training.batch_clips
    exchange = Exchange()
    alone = new_trainer(config, device)
    batch = part(config, arguments.size, clips=clips, rank=0)
    steps: list[Step] = [lambda: alone.step(batch)]
    for each in (clips // ranks, clips):
        own = part(config, arguments.size, clips=each, rank=rank)
        learner = new_trainer(config, device, exchange=exchange)
        steps.append(shared_step(learner, own, ranks))
    took: list[list[float]] = [[] for _ in steps]
    for turn in range(WARM_UP + arguments.rounds):
        for way, step in enumerate(steps):
            if way == 0 and rank > 0:
                wait(store, f"alone {turn}")
                continue
            spent = seconds(step, device)
            if way == 0:
                store.set(f"alone {turn}", "")
            if turn >= WARM_UP:
                took[way].append(spent)
    if rank == 0:
        one, same, larger = (statistics.median(each) for each in took)
        triplets = int(batch.valid.sum())
        print(
            f"{ranks:>5}{1e3 * one:>10.1f}{1e3 * same:>10.1f}{1e3 * larger:>10.1f}"
            f"{triplets / one:>12.0f}{triplets / same:>10.0f}{ranks * triplets / larger:>10.0f}"
            f"{one / same / ranks:>12.2f}{one / larger:>10.2f}",
            flush=True,
        )
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps of one rank and of several.")
    parser.add_argument("--preset", default="tabletop")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--rank", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        rank, ranks = arguments.rank
        return rank_main(arguments, rank, ranks, arguments.folder)
    gpus = torch.cuda.device_count()
    where = torch.cuda.get_device_name() if gpus else "CPU, one thread a rank"
    side = arguments.size
    print(f"{arguments.preset}, {side}x{side}, {where}, torch {torch.__version__}")
    print(f"{'':5}{'ms per step':>30}{'triplets/s':>32}{'efficiency':>22}")
    same = f"{'shared':>10}{'larger':>10}"
    print(f"{'ranks':5}{'alone':>10}{same}{'alone':>12}{same}{'shared':>12}{'larger':>10}")
    counts = [2**power for power in range(1, 11) if 2**power <= gpus] or [2]
    for ranks in counts:
        launch(arguments, ranks)


def launch(arguments: argparse.Namespace, ranks: int) -> None:
    """Run all ranks, on the core or GPU of each."""
    given = ["--preset", arguments.preset, "--size", arguments.size, "--rounds", arguments.rounds]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory() as folder:
        children: list[subprocess.Popen[bytes]] = []
        for rank in range(ranks):
            words = [__file__, *given, "--folder", folder, "--rank", rank, ranks]
            command = [sys.executable, *map(str, words)]
            children.append(subprocess.Popen(command, env=environment))
        codes = [child.wait() for child in children]
    if any(codes):
        raise SystemExit(f"ranks ended with {codes}")


if __name__ == "__main__":
    main()
