"""A fixed camera before which people walk: how many of them does the preset `things` find?

    python benchmarks/training/fixed_camera.py VIDEO [--size 128] [--steps 500] [--seed 0]
                                               [--live MINUTES] [--folder DIR] [--json FILE]

What differs from the recording's median picture by more than 28 of 255, in one piece, is taken for
a person, or several who walk close together. One counts as found if a segment covers it with an
intersection over union above 0.4. Every fourth frame counts, of the last fifth of the recording,
which is not learned from. Segmentations that need no model are given the mean number of people, and
any of their segments may cover one.

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
from online.runs.checkpoint import load_checkpoint
from online.runs.names import CHECKPOINTS, step_of
from online.runs.weights import load_into
from setcon.measures.baselines import block_labels, frame_k_means_labels, frame_ward_labels

CLI = [sys.executable, "-m", "setcon"]
DIFFERENT, LEAST_PIXELS, LEAST_IOU = 28, 30, 0.4
HEIGHTS = (20, 10)
"""Pixels, of 128, that people are taller than."""
EVERY = 4
MAX_DELAY = 30
"""Seconds after which a trainer that is slower than the camera skips footage."""
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


def recall(
    trained: TrainedRun, store: Path, *, share: float, baselines: bool = True
) -> dict[str, dict[str, float]]:
    """Share of people found in the last `share` of a store's only recording, by their height."""
    with opened_store(trained, store) as opened:
        (recording,) = opened.catalog.recordings()
        whole = opened.catalog.fetch(recording.name, 0, recording.length).images
        readout = Readout(trained.model, None, opened.catalog, device=trained.device)
        first = round(recording.length * (1 - share))
        read = list(readout.read(recording.name, Interval(first, recording.length)))
    median = np.median(whole[::5], axis=0).astype(np.uint8)
    images = np.concatenate([each.frames.images[::EVERY] for each in read])
    segments = [each.segments[::EVERY] for each in read if each.segments is not None]
    small = min(HEIGHTS) * images.shape[1] / 128
    there = [people(image, median, height=small) for image in images]
    ways = {"things": np.concatenate(segments)}
    if baselines:
        ways |= _without_model(images, there)
    return {way: _found(there, labels) for way, labels in ways.items()}


def _without_model(
    images: UInt8[np.ndarray, "n h w 3"], there: list[list[Bool[np.ndarray, "h w"]]]
) -> dict[str, Int64[np.ndarray, "n h w"]]:
    """Labels from 1 on, as any may be a person."""
    frames, count = torch.from_numpy(images), 1 + round(np.mean([len(each) for each in there]))
    n, height, width, _ = images.shape
    labels = {
        "blocks": block_labels(n, num_segments=count, height=height, width=width),
        "k-means in each frame": frame_k_means_labels(frames, num_segments=count),
        "Ward in each frame": frame_ward_labels(frames, num_segments=count),
    }
    return {way: 1 + each.numpy() for way, each in labels.items()}


def _found(
    there: list[list[Bool[np.ndarray, "h w"]]], labels: Int64[np.ndarray, "n h w"]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for height in HEIGHTS:
        tall = height * labels.shape[1] / 128
        each = [
            is_found(person, segments)
            for those, segments in zip(there, labels, strict=True)
            for person in those
            if person.any(axis=1).sum() > tall
        ]
        found |= {f"over {height} px": float(np.mean(each)), f"people over {height} px": len(each)}
    return found


def stored(options: argparse.Namespace) -> Path:
    """VIDEO as a store."""
    store = options.folder / f"store-{options.size}"
    if not store.exists():
        given = [options.video, store, "--size", str(options.size)]
        subprocess.run([*CLI, "ingest", *given], check=True)
    return store


def recorded(options: argparse.Namespace) -> dict[str, Any]:
    """Learn from a file."""
    store = stored(options)
    run = options.folder / f"run-{options.size}-{options.seed}-{options.steps}"
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
    told += [f"stream.max_delay_seconds={MAX_DELAY}"]
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
    store, trained, rows = stored(options), load_run(run), []
    for path in sorted((run / CHECKPOINTS).iterdir()):
        checkpoint = load_checkpoint(path)
        load_into(trained.model, checkpoint.model, where=path)
        minutes = checkpoint.run["seconds"] / 60
        row = {"learned_minutes": minutes, "step": step_of(path)}
        rows.append(row | recall(trained, store, share=0.5, baselines=False)["things"])
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
