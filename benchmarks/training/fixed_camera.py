"""A fixed camera before which people walk: how many of them does the preset `things` find?

    python benchmarks/training/fixed_camera.py VIDEO [--size 128] [--steps 500] [--seed 0]
                                               [--live MINUTES] [--folder DIR] [--json FILE]

What differs from the median picture by more than 28 of 255, in one piece, is taken for a person,
or several who walk close together. One counts as found if a segment covers it with an intersection
over union above 0.4. Every fourth frame counts, of the last fifth of the recording, which is not
learned from.

--live  show VIDEO over and over in real time to `setcon capture --serve`, from which `setcon train
        --connect` learns meanwhile. For each checkpoint: the share of people found (in footage that
        it has seen by then, without labels), memory of both processes, and the trainer's delay.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from scipy import ndimage

from online.analysis.opened import TrainedRun, load_run, opened_store
from online.analysis.readout import Readout
from online.clips.clip import Interval
from online.runs.checkpoint import load_checkpoint, step_of
from online.runs.weights import load_into

CLI = [sys.executable, "-m", "setcon"]
DIFFERENT, LEAST_PIXELS, LEAST_IOU = 28, 30, 0.4
HEIGHTS = (20, 10)
"""Pixels, of 128, that people are taller than."""
EVERY = 4
SETTINGS = ("probe.steps=10", "evaluation.train_clips=2", "evaluation.held_out_clips=2")
"""People are found without a probe."""


def people(
    image: UInt8[np.ndarray, "h w 3"], median: UInt8[np.ndarray, "h w 3"], *, height: float
) -> list[Bool[np.ndarray, "h w"]]:
    """Masks of what differs from the median picture and is taller than `height` pixels."""
    different = np.abs(image.astype(int) - median).max(axis=-1) > DIFFERENT
    closed = ndimage.binary_closing(ndimage.binary_opening(different))
    pieces = np.asarray(ndimage.label(closed)[0])  # type: ignore[index]
    masks = [pieces == piece for piece in range(1, int(pieces.max()) + 1)]
    return [m for m in masks if m.sum() >= LEAST_PIXELS and m.any(axis=1).sum() > height]


def is_found(person: Bool[np.ndarray, "h w"], segments: Int64[np.ndarray, "h w"]) -> bool:
    """Whether one segment, not the background, covers it."""
    shares = (
        (segments[person] == s).sum() / (person | (segments == s)).sum()
        for s in np.unique(segments[person])
        if s > 0
    )
    return max(shares, default=0.0) > LEAST_IOU


def recall(trained: TrainedRun, store: Path, *, share: float) -> dict[str, float]:
    """Share of people found in the last `share` of a store's only recording, by their height."""
    found: dict[int, list[bool]] = {height: [] for height in HEIGHTS}
    with opened_store(trained, store) as opened:
        (recording,) = opened.catalog.recordings()
        whole = opened.catalog.fetch(recording.name, 0, recording.length).images
        median = np.median(whole[::5], axis=0).astype(np.uint8)
        readout = Readout(trained.model, None, opened.catalog, device=trained.device)
        first = round(recording.length * (1 - share))
        for read in readout.read(recording.name, Interval(first, recording.length)):
            assert read.segments is not None
            for image, segments in zip(
                read.frames.images[::EVERY], read.segments[::EVERY], strict=True
            ):
                for height, each in found.items():
                    tall = height * image.shape[0] / 128
                    each += [is_found(p, segments) for p in people(image, median, height=tall)]
    return {f"over {height} px": float(np.mean(each)) for height, each in found.items()} | {
        f"people over {HEIGHTS[0]} px": len(found[HEIGHTS[0]])
    }


def recorded(options: argparse.Namespace) -> dict[str, Any]:
    """Learn from a file."""
    store = options.folder / f"store-{options.size}"
    run = options.folder / f"run-{options.size}-{options.seed}-{options.steps}"
    if not store.exists():
        subprocess.run(
            [*CLI, "ingest", options.video, store, "--size", str(options.size)], check=True
        )
    told = [*SETTINGS, f"training.steps={options.steps}", f"training.seed={options.seed}"]
    subprocess.run([*CLI, "train", store, "--run", run, *_train(told)], check=True)
    return recall(load_run(run), store, share=0.2)


def live(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Learn while it is filmed."""
    folder = options.folder / f"live-{options.size}-{options.seed}"
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    device = f"lavfi:movie={options.video}:loop=0,setpts=N/FRAME_RATE/TB,realtime"
    capture = [*CLI, "capture", device, folder / "store", "--size", str(options.size)]
    told = [*SETTINGS, "training.steps=1000000", f"training.seed={options.seed}"]
    told += ["training.checkpoint_every_seconds=120", "training.keep_checkpoints=100000"]
    train = [*CLI, "train", "--connect", address, "--run", folder / "run", *_train(told)]
    seconds, rows = 60 * options.live, []
    with (
        _running([*capture, "--serve", address, "--seconds", str(seconds)], folder / "c") as camera,
        _running(train, folder / "t") as trainer,
    ):
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds and trainer.poll() is None:
            status = folder / "run" / "status.json"
            now = json.loads(status.read_text()) if status.exists() else {}
            row = {"minutes": passed / 60, "step": now.get("step"), "skipped": now.get("skipped")}
            row |= {"delay_seconds": now.get("delay_seconds")}
            row |= {"capture_mb": _megabytes(camera.pid), "trainer_mb": _megabytes(trainer.pid)}
            rows.append(row)
            _progress(str(row))
            time.sleep(30)
    return rows + _found_since(folder / "run", options)


def _found_since(run: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The share of people found by each checkpoint, in VIDEO as ingested from the file."""
    store, trained, rows = options.folder / f"store-{options.size}", load_run(run), []
    if not store.exists():
        subprocess.run(
            [*CLI, "ingest", options.video, store, "--size", str(options.size)], check=True
        )
    for path in sorted((run / "checkpoints").iterdir()):
        checkpoint = load_checkpoint(path)
        load_into(trained.model, checkpoint.model, where=path)
        minutes = checkpoint.run["seconds"] / 60
        row = {"learned_minutes": minutes, "step": step_of(path)}
        rows.append(row | recall(trained, store, share=0.5))
        _progress(str(rows[-1]))
    return rows


def _train(settings: list[str]) -> list[str]:
    return ["--preset", "things", *(word for each in settings for word in ("--set", each))]


@contextmanager
def _running(command: list[Any], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is interrupted at the end, and may save what it has."""
    with log.open("wb") as file:
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(120)


def _megabytes(pid: int) -> float:
    """Resident memory; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--live", type=float, metavar="MINUTES")
    parser.add_argument("--folder", type=Path, default=Path("fixed-camera"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    found = recorded(options) if options.live is None else live(options)
    print(json.dumps(found, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
