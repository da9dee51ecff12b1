"""Triplets per second of a training step: three encoder passes per triplet against each frame once.

    python benchmarks/training/train_step.py [--triplets 256] [--clips 4] [--rounds 3]
                                             [--kind small] [--threads N] [--json FILE]

Every variant is the same model (feature size 64, hidden size 128, 7 slots, 128x128) and trains on
the same triplets: forward, loss, backward, Adam, data already in memory. Each runs in a process of
its own, so that one's memory is not another's, and they take turns: one step each per round, while
the others sleep. Ratios are of medians; those of CPU time suffer less from others on the machine.

The first row is how the 2021 port trains, on batches of triplets; "three passes, tuned" has
everything but the one pass per frame, to show what that alone is worth.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from online.allocator import keep_freed_memory
from setcon import (
    EncoderConfig,
    LossConfig,
    SetCon,
    SetConConfig,
    SetEncoderConfig,
    SlotAttentionConfig,
)
from setcon.config import EncoderKind
from setcon.loss import contrastive_loss

LOSS = LossConfig(similarity="cosine", temperature=0.5, standardise=False)  # the port's


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to take the same step."""

    name: str
    once: bool
    """Encode each frame of a clip once, instead of three frames per triplet."""
    channels_last: bool = False
    keep_memory: bool = False
    bfloat16: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step took: wall clock, CPU time in the program and in the kernel, page faults."""

    wall_seconds: float
    user_seconds: float
    system_seconds: float
    page_faults: int


VARIANTS = [
    Variant(name="three passes (a)", once=False),
    Variant(name="each frame once (b)", once=True),
    Variant(name="+ channels_last", once=True, channels_last=True),
    Variant(name="+ freed memory kept (c)", once=True, channels_last=True, keep_memory=True),
    Variant(name="+ bfloat16 (d)", once=True, channels_last=True, keep_memory=True, bfloat16=True),
    Variant(name="three passes, tuned", once=False, channels_last=True, keep_memory=True),
]


def main() -> None:
    options = _options()
    fast_bfloat16 = any(
        name.endswith("bf16") and found for name, found in torch.cpu.get_capabilities().items()
    )
    variants = [variant for variant in VARIANTS if fast_bfloat16 or not variant.bfloat16]
    rows = summarise(measure(variants, options), options.triplets)
    print(f"{options.triplets} triplets in {options.clips} clips, {options.threads} threads\n")
    columns = f"{'per second':>12}{'ratio':>7}{'per CPU second':>16}{'ratio':>7}{'page faults':>13}"
    print(" " * 26 + columns)
    for row in rows:
        print(
            f"{row['variant']:26}"
            f"{row['triplets_per_second']:12.1f}{row['ratio']:7.2f}"
            f"{row['triplets_per_cpu_second']:16.1f}{row['cpu_ratio']:7.2f}"
            f"{row['page_faults']:13.0f}"
        )
    if not fast_bfloat16:
        print("no bfloat16 row: this CPU has no instructions for it")
    if options.json is not None:
        result = {"threads": options.threads, "cpu": torch.cpu.get_capabilities()["cpu_name"]}
        options.json.write_text(json.dumps({**result, "rows": rows}, indent=1) + "\n")


def measure(variants: list[Variant], options: argparse.Namespace) -> dict[str, list[Step]]:
    """The steps of every variant, interleaved, without the first of each."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, Connection] = {}
    for variant in variants:
        ours, theirs = context.Pipe()
        context.Process(target=_work, args=(theirs, variant, options), daemon=True).start()
        theirs.close()  # so that a worker's death is an EOFError here
        workers[variant.name] = ours
    steps: dict[str, list[Step]] = {variant.name: [] for variant in variants}
    for _ in range(1 + options.rounds):
        for name, worker in workers.items():
            worker.send("step")
            steps[name].append(worker.recv())
    for worker in workers.values():
        worker.send("stop")
    return {name: taken[1:] for name, taken in steps.items()}


def summarise(steps: dict[str, list[Step]], triplets: int) -> list[dict[str, Any]]:
    """Medians of each variant, and its speed in times the first one's."""
    rows: list[dict[str, Any]] = []
    for name, taken in steps.items():
        median = {
            field.name: statistics.median(getattr(step, field.name) for step in taken)
            for field in fields(Step)
        }
        cpu_seconds = median["user_seconds"] + median["system_seconds"]
        row: dict[str, Any] = {
            "variant": name,
            "triplets_per_second": triplets / median["wall_seconds"],
            "triplets_per_cpu_second": triplets / cpu_seconds,
        }
        first = rows[0] if rows else row
        row["ratio"] = row["triplets_per_second"] / first["triplets_per_second"]
        row["cpu_ratio"] = row["triplets_per_cpu_second"] / first["triplets_per_cpu_second"]
        rows.append(row | median)
    return rows


def _work(pipe: Connection, variant: Variant, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    if variant.keep_memory and not keep_freed_memory():
        raise RuntimeError("this platform's malloc cannot be made to keep memory")
    step = _stepper(variant, options)
    while pipe.recv() == "step":
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        step()
        wall_seconds, after = (
            time.perf_counter() - started,
            resource.getrusage(resource.RUSAGE_SELF),
        )
        pipe.send(
            Step(
                wall_seconds=wall_seconds,
                user_seconds=after.ru_utime - before.ru_utime,
                system_seconds=after.ru_stime - before.ru_stime,
                page_faults=after.ru_minflt - before.ru_minflt,
            )
        )


def _stepper(variant: Variant, options: argparse.Namespace) -> Callable[[], None]:
    """A training step of a fresh model on the same random clips."""
    torch.manual_seed(0)
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    model = SetCon(_config(options.kind))
    model.to(memory_format=layout)  # pyright: ignore[reportCallIssue] (missing in torch's stubs)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, weight_decay=1e-6)
    length = options.triplets // options.clips + 2
    frames = torch.rand(options.clips * length, 3, 128, 128).contiguous(memory_format=layout)
    clips = frames.unflatten(0, (options.clips, length))
    # what a loader of triplets hands over: three batches of images, each frame up to three times
    triplets = [clips[:, i : length - 2 + i].flatten(0, 1).contiguous() for i in range(3)]
    triplets = [images.contiguous(memory_format=layout) for images in triplets]

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=variant.bfloat16):
            loss = _loss_once(model, clips) if variant.once else _loss_three(model, triplets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _loss_once(model: SetCon, clips: Tensor) -> Tensor:
    return model.loss(model(clips), LOSS).loss


def _loss_three(model: SetCon, triplets: list[Tensor]) -> Tensor:
    slots = torch.stack([model.encode(images).slots for images in triplets], dim=1)
    predicted = model.summarise(model.predict(slots)[:, 0])
    states = model.summarise(slots[:, 2])
    return contrastive_loss(predicted, states, torch.arange(len(states)), LOSS).loss


def _config(kind: EncoderKind) -> SetConConfig:
    return SetConConfig(
        center_inputs=False,
        encoder=EncoderConfig(kind=kind, width=64, normalisation="batch"),
        slot_attention=SlotAttentionConfig(
            num_slots=7, slot_size=64, hidden_size=128, iterations=3
        ),
        set_encoder=SetEncoderConfig(hidden_size=128, output_size=64, depth=3, activation="elu"),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Triplets per second of a training step.")
    parser.add_argument("--triplets", type=int, default=256, help="triplets per step")
    parser.add_argument("--clips", type=int, default=4, help="clips that they are cut from")
    parser.add_argument("--rounds", type=int, default=3, help="measured steps of each variant")
    parser.add_argument("--kind", default="small", choices=["small", "normal", "large"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
