"""A live source, recorded for minutes: is a frame lost silently, and how soon can it be read?

    python benchmarks/ingest/live.py SOURCE [--seconds 600] [--train] [--json FILE]

SOURCE is a video, which `ffmpeg` sends as MPEG-TS over loopback TCP in real time, 1080p30 H.264, or
`x11grab`, the screen of an Xvfb in which `xeyes` and `xclock` run. `setcon capture` records it, and
another process reads the store as any reader would. A frame whose predecessor is further away than
1.6 intervals, and that bears no mark of a gap, was lost silently.

--train  serve the recording too, and have `setcon train --connect` learn from it meanwhile
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ingest.errors import IngestError
from ingest.open import open_store
from ingest.store.records import CommitRecord

FPS = 30
DISPLAY = ":97"
FINISH_SECONDS = 330.0
"""How long a trainer may take to learn from the rest, and to probe."""
CLI = [sys.executable, "-m", "setcon"]


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[Any]:
    """A process that ends with the context."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def mpegts(video: Path, folder: Path, seconds: float, stack: ExitStack) -> tuple[str, list[str]]:
    """A device that sends `video`, over and over, and options for it."""
    minute, whole = folder / "minute.mp4", folder / "whole.mp4"
    kernel = ["-vf", f"scale=1920:1080,fps={FPS},format=yuv420p", "-t", "60"]
    h264 = ["-c:v", "libx264", "-preset", "veryfast", "-g", str(FPS), "-an"]
    loop = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1"]
    _progress("encoding a minute")
    subprocess.run([*loop, "-i", str(video), *kernel, *h264, str(minute)], check=True)
    # a file whose times go on: MPEG-TS that is looped leaves a hole where it begins again
    length = ["-t", str(seconds + 30)]
    subprocess.run([*loop, "-i", str(minute), "-c", "copy", *length, str(whole)], check=True)
    port = _free_port()
    sent = ["-c", "copy", "-f", "mpegts", f"tcp://127.0.0.1:{port}?listen=1"]
    real_time = ["ffmpeg", "-v", "error", "-re", "-i", str(whole), *sent]
    stack.enter_context(running(real_time))
    time.sleep(1.0)
    return f"tcp://127.0.0.1:{port}", []


def x11grab(stack: ExitStack) -> tuple[str, list[str]]:
    """A screen on which something moves, and options for it."""
    screen = ["Xvfb", DISPLAY, "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    stack.enter_context(running(screen, stderr=subprocess.DEVNULL))
    time.sleep(1.0)
    there = {"env": os.environ | {"DISPLAY": DISPLAY}, "stderr": subprocess.DEVNULL}
    stack.enter_context(running(["xclock", "-update", "1", "-geometry", "300x300+20+60"], **there))
    stack.enter_context(running(["xeyes", "-geometry", "250x200+360+40"], **there))
    return f"x11grab:{DISPLAY}", ["--option", "video_size=640x480", "--option", f"framerate={FPS}"]


def watch(
    store: Path, process: subprocess.Popen[bytes], seconds: float
) -> tuple[list[float], CommitRecord]:
    """Seconds from the capture of each frame to when a reader could read it; the last commit."""
    delays: list[float] = []
    deadline = time.monotonic() + seconds + 60
    reader = None
    while reader is None:
        with suppress(IngestError, IndexError):
            opened = open_store(store)
            reader = opened.reader(opened.recordings()[0])
        _expect(process, deadline)
    with reader:
        while True:
            ended = process.poll() is not None
            known, length = len(delays), reader.refresh().length
            if length > known:
                captured_ns = reader.read(known, length).captured_ns
                assert captured_ns is not None
                now = time.time()
                delays += [now - int(ns) / 1e9 for ns in captured_ns]
                _progress(f"{length} frames, the newest {delays[-1]:.2f} s old")
            if reader.commit.complete:
                return delays, reader.commit
            _expect(process, deadline, ended=ended)
            time.sleep(0.01)


def lost_unsaid(store: Path) -> int:
    """Frames that follow after too long without a mark of a gap."""
    opened = open_store(store)
    with opened.reader(opened.recordings()[0]) as reader:
        late = np.diff(reader.pts_ns()) > 1.6e9 / FPS
        return int(np.sum(late & ~reader.gap()[1:]))


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="setcon-live-") as name, ExitStack() as stack:
        folder, store = Path(name), Path(name) / "store"
        if options.source == "x11grab":
            device, more = x11grab(stack)
        else:
            device, more = mpegts(Path(options.source), folder, options.seconds, stack)
        address = f"tcp://127.0.0.1:{_free_port()}"
        serve = ["--serve", address] if options.train else []
        command = [*CLI, "capture", device, str(store), "--seconds", str(options.seconds)]
        with open(folder / "capture.txt", "wb") as log:  # noqa: PTH123
            process = stack.enter_context(running([*command, *more, *serve], stdout=log))
            trainer = None
            if options.train:
                trainer = stack.enter_context(_trainer(address, folder, options.seconds))
            delays, commit = watch(store, process, options.seconds)
        found = _figures(delays, commit, lost_unsaid(store))
        if trainer is not None:
            trainer.wait(FINISH_SECONDS)  # the stream ends with the camera, and the run with it
            found |= _learned(folder / "run")
        for key, value in found.items():
            print(f"{key:40} {value}")
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


def _figures(delays: list[float], commit: CommitRecord, unsaid: int) -> dict[str, Any]:
    p50, p99 = np.percentile(delays, [50, 99])
    counters = commit.counters
    whole = counters.stored + counters.dropped + counters.duplicate + counters.resampled
    return {
        "frames stored": commit.length,
        "seconds of footage": round(commit.duration_seconds, 1),
        "counters": str(counters),
        "counters add up": counters.decoded == whole and counters.stored == commit.length,
        "frames lost unsaid": unsaid,
        "capture to readable, median seconds": round(float(p50), 3),
        "capture to readable, p99 seconds": round(float(p99), 3),
        "capture to readable, most seconds": round(max(delays), 3),
    }


def _trainer(address: str, folder: Path, seconds: float) -> Any:
    command = [*CLI, "train", "--connect", address, "--run", str(folder / "run")]
    settings = ["evaluation.every_steps=1000000", "training.log_every_steps=10"]
    settings += ["stream.clip_length=16", "replay.samples_per_insert=2"]
    more = [word for setting in settings for word in ("--set", setting)]
    log = (folder / "train.txt").open("wb")
    return running([*command, *more], stdout=log, stderr=log)


def _learned(run: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    behind = [s["delay_seconds"] for s in steps if s["delay_seconds"] is not None]
    return {
        "steps learned meanwhile": steps[-1]["step"],
        "clips inserted, skipped": f"{steps[-1]['clips_inserted']}, {steps[-1]['clips_skipped']}",
        "capture to trainer, median seconds": round(float(np.median(behind)), 2),
        "capture to trainer, most seconds": round(max(behind), 2),
    }


def _expect(process: subprocess.Popen[bytes], deadline: float, *, ended: bool = False) -> None:
    if ended:
        raise SystemExit(f"setcon capture ended with {process.returncode} and left no recording")
    if time.monotonic() > deadline:
        raise SystemExit("setcon capture did not end in time")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _progress(text: str) -> None:
    print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A live source, recorded for minutes.")
    parser.add_argument("source", help="a video, or x11grab")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
