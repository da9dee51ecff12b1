"""Three cameras, two trainers and a hostile peer for an hour: is a frame lost, wrong or late?

    python benchmarks/queue/soak.py [--minutes 60] [--seed 0] [--loss 0.01] [--json FILE]

    H.264 by UDP, datagrams lost ─▶ capture ┐
    drawn by FFmpeg (lavfi) ──────▶ capture ├▶ store, --keep 10m ─▶ serve ─▶ trainer, trainer
    pushed by a program ──────────▶ capture ┘                         ▲
                                                                 hostile peer

Each picture shows its number. While they are recorded, all of them are read: a number that is
missing must be that of a frame before a gap, and each picture within an MSE of 30 of the one that
was sent. In the first half one of the cameras, the trainers and the server is killed now and then,
and started again; a camera then begins another recording. In the second half nothing is killed, so
that memory can be watched, while loss and attacks go on. At the end each trainer's ledger must hold
the clips of every recording in order, each once.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from hostile import ATTACKS, attacked
from ledger import ledger_writer, read_ledger
from numbered import FPS, SIDE, drawn, errors_of, graph, numbers_in, paced, send

from ingest.errors import IngestError
from ingest.live.pushed import open_capture
from ingest.open import open_store
from ingest.store.protocols import RecordingReader, Store
from online.clips.catalog import StoreCatalog

CONTEXT = get_context("spawn")
KEEP = "10m"
LARGEST_MSE = 30.0
ATTACK_SECONDS = 20.0
"""How long each attack lasts, and the peace after it."""
CLI = [sys.executable, "-m", "setcon"]
CLIP_LENGTH = 16
SETTINGS = (
    "training.steps=100000000",
    "training.batch_clips=4",
    "training.log_every_steps=10",
    "training.precision=float32",
    "training.checkpoint_every_seconds=10",
    "training.prequential_candidates=8",
    "training.prequential_gap_seconds=1",
    "training.threads=1",
    "replay.samples_per_insert=1",
    "replay.fifo_bytes=8000000",
    "replay.long_term_bytes=8000000",
    f"stream.clip_length={CLIP_LENGTH}",
    "evaluation.every_steps=100000000",
)


def learn(address: str, run: str) -> None:
    """A trainer that notes what became of each clip, and how long it waited for some."""
    from online.config import load_preset
    from online.queue.client import Client
    from online.session.start import train
    from online.session.wiring import Start

    path = Path(run)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    waits = os.open(path.with_suffix(".waits"), flags, 0o644)
    next_clip, began = Client.next_clip, None

    def timed(self: Client, timeout_seconds: float = 60.0) -> Any:
        nonlocal began
        began = began or time.time()
        delivery = next_clip(self, timeout_seconds)  # raises where none has come: it waits on
        os.write(waits, f"{began} {time.time()}\n".encode())
        began = None
        return delivery

    Client.next_clip = timed
    observe = ledger_writer(path.with_suffix(".ledger"))
    config = load_preset("demo", SETTINGS)
    train(Start(run=path, config=config, addresses=[address], observe_clips=observe))


def push(store: str, name: str, pushed: Any) -> None:
    """A program that pushes frames until it is asked to stop."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with open_capture(store, name, size=SIDE, keep_seconds=600) as camera:
        for number in paced(FPS):
            if stopping.is_set():
                break
            camera.push(drawn(np.array([number]))[0])
            pushed.value = number + 1


def lose(from_port: int, to_port: int, share: float, seed: int, lost: Any) -> None:
    """Pass datagrams on, but for some."""
    rng = random.Random(seed)
    with socket.socket(type=socket.SOCK_DGRAM) as taken, socket.socket(type=socket.SOCK_DGRAM) as s:
        taken.bind(("127.0.0.1", from_port))
        while True:
            data = taken.recv(1 << 16)
            if rng.random() < share:
                lost.value += 1
            else:
                with suppress(ConnectionRefusedError):  # the camera is being started again
                    s.sendto(data, ("127.0.0.1", to_port))


@dataclass
class Part:
    """A process that can be killed and started again."""

    name: str
    start: Callable[[int], Any]
    """Gives a process, with a `pid`, for the start of this number."""
    starts: int = 0
    process: Any = None
    started_at: float = 0.0

    def again(self) -> None:
        """Start it, for the first time or once more."""
        self.process = self.start(self.starts)
        self.starts += 1
        self.started_at = time.time()

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.process.pid, signal.SIGKILL)
        (self.process.join if hasattr(self.process, "join") else self.process.wait)()

    def has_ended(self) -> bool:
        """Whether it has ended by itself, as none should."""
        alive = getattr(self.process, "is_alive", None)
        return not alive() if alive is not None else self.process.poll() is not None


@dataclass
class Recording:
    """What was found in one recording so far."""

    reader: RecordingReader
    length: int = 0
    last: int = -1
    missing: int = 0
    """Numbers between those that are there."""
    gaps: int = 0
    worst_mse: float = 0.0
    latest_seconds: float = 0.0
    """From when a frame was captured to when it was read here."""


@dataclass
class Checker:
    """Reads all recordings while they grow."""

    store: Path
    found: dict[str, Recording] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Read what is new, and note what is wrong with it."""
        opened = open_store(self.store)
        for name in opened.recordings():
            if name not in self.found:
                self.found[name] = Recording(opened.reader(name))
            recording = self.found[name]
            length = recording.reader.refresh().length
            while recording.length < length:
                self._check(name, recording, min(length, recording.length + 256))

    def _check(self, name: str, recording: Recording, stop: int) -> None:
        frames = recording.reader.read(recording.length, stop)
        numbers = numbers_in(frames.images)
        before = np.concatenate([[recording.last], numbers[:-1]])
        steps = numbers - before
        if recording.length == 0:
            steps[0] = 1  # a recording begins with any number
        errors = errors_of(frames.images, numbers)
        assert frames.captured_ns is not None
        for at in np.flatnonzero((steps < 1) | ((steps > 1) & ~frames.gap)):
            self.wrong.append(f"{name}: {numbers[at]} after {before[at]} without a gap")
        for at in np.flatnonzero(errors > LARGEST_MSE):
            self.wrong.append(f"{name}: frame {recording.length + at}, MSE {errors[at]:.0f}")
        recording.missing += int((steps - 1).sum())
        recording.gaps += int(frames.gap.sum())
        recording.worst_mse = max(recording.worst_mse, float(errors.max()))
        age = time.time() - int(frames.captured_ns[0]) / 1e9
        recording.latest_seconds = max(recording.latest_seconds, age)
        recording.length, recording.last = stop, int(numbers[-1])


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(type=kind) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Soak:
    """All that runs."""

    def __init__(self, folder: Path, options: argparse.Namespace, stack: ExitStack) -> None:
        self.folder, self.store = folder, folder / "store"
        self.rng = random.Random(options.seed)
        self.kills: Counter[str] = Counter()
        self.memory: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.lost, self.pushed = CONTEXT.Value("Q", 0), CONTEXT.Value("Q", 0)
        self.unsettled: list[tuple[float, float]] = []
        """When a part that trainers depend on was down."""
        from_port, to_port = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
        self.address = f"tcp://127.0.0.1:{free_port()}"
        loss = (from_port, to_port, options.loss, options.seed, self.lost)
        for target, given in (
            (lose, loss),
            (send, (f"udp://127.0.0.1:{from_port}?pkt_size=1316",)),
        ):
            helper = CONTEXT.Process(target=target, args=given, daemon=True)
            helper.start()
            stack.callback(helper.kill)
        open_store(self.store, create_format="zarr")
        self.parts = [
            Part("udp", self._captured(f"udp://127.0.0.1:{to_port}", "udp")),
            Part("lavfi", self._captured(f"lavfi:{graph()}", "lavfi")),
            Part("push", self._pushed),
            Part("server", lambda _: self._command("server", "serve", *self._serving())),
            *(Part(f"trainer {i}", self._trainer(i)) for i in range(2)),
        ]
        for part in self.parts:
            part.again()
        stack.callback(self._kill_all)

    def kill_one(self) -> None:
        """Kill one part, and start it again after a while."""
        part = self.rng.choice([*self.parts[:4], *self.parts])  # trainers are slow to start
        self.kills[part.name] += 1
        began = time.time()
        part.kill()
        time.sleep(self.rng.choice([0.0, 0.5, 2.0]))
        part.again()
        self.unsettled.append((began, time.time() + 1.0))

    def watch(self) -> None:
        """Note the memory of each part; raises RuntimeError where one has ended by itself."""
        for part in self.parts:
            if part.has_ended():
                raise RuntimeError(f"{part.name} ended by itself")
            pages = int(Path(f"/proc/{part.process.pid}/statm").read_text().split()[1])
            self.memory[part.name].append((time.time(), pages * 4096 / 1e6))

    def finish(self) -> None:
        """Stop the cameras in order, so that their last frames are committed."""
        for part in self.parts[:3]:
            os.kill(part.process.pid, signal.SIGTERM)
        for part in self.parts[:3]:
            (part.process.join if hasattr(part.process, "join") else part.process.wait)(60)

    def _kill_all(self) -> None:
        for part in self.parts:
            with suppress(ProcessLookupError):
                part.kill()

    def _serving(self) -> Sequence[str]:
        return (str(self.store), "--bind", self.address, "--follow", "--holdout", "0")

    def _captured(self, device: str, name: str) -> Callable[[int], Any]:
        return lambda number: self._command(
            *(name, "capture", device, str(self.store), "--name", f"{name}-{number}"),
            *("--size", str(SIDE), "--keep", KEEP),
        )

    def _pushed(self, number: int) -> Any:
        process = CONTEXT.Process(
            target=push, args=(str(self.store), f"push-{number}", self.pushed), daemon=True
        )
        process.start()
        return process

    def _trainer(self, number: int) -> Callable[[int], Any]:
        def start(_: int) -> Any:
            run = str(self.folder / f"trainer-{number}")
            process = CONTEXT.Process(target=learn, args=(self.address, run), daemon=True)
            process.start()
            return process

        return start

    def _command(self, log: str, *arguments: str) -> Any:
        said = (self.folder / f"{log}.log").open("a")
        return subprocess.Popen([*CLI, *arguments], stdout=said, stderr=said)


@contextmanager
def attacks_in_turn(address: str) -> Iterator[Counter[str]]:
    """A hostile peer that tries one thing after the other."""
    stopping, turns = threading.Event(), Counter()
    names = ["long clips", "requests", "endless parts", "coming and going"]

    def run() -> None:
        while True:
            for name in names:
                with attacked(address, ATTACKS[name]):
                    if stopping.wait(ATTACK_SECONDS):
                        return
                turns[name] += 1
                if stopping.wait(ATTACK_SECONDS):
                    return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield turns
    finally:
        stopping.set()
        thread.join()


def longest_waits(path: Path, unsettled: list[tuple[float, float]]) -> tuple[float, float]:
    """The longest time that a trainer was without a clip, while all else ran and at any time."""
    waits = np.array([line.split() for line in path.read_text().splitlines()], np.float64)
    settled = [
        ended - began
        for began, ended in waits
        if not any(down < ended and up > began for down, up in unsettled)
    ]
    return max(settled, default=float("inf")), float(np.max(waits[:, 1] - waits[:, 0]))


def slope_mb_per_hour(samples: list[tuple[float, float]], since: float) -> float:
    """How fast memory has grown, by a straight line through all samples of the time."""
    at, size = np.array([sample for sample in samples if sample[0] > since]).T
    return float(np.polyfit((at - at[0]) / 3600, size, 1)[0])


def clips_out_of_order(ledger: Path, store: Store) -> tuple[int, list[str]]:
    """How many clips a trainer was offered, and the recordings of which they are not the plan."""
    taken: dict[str, list[int]] = defaultdict(list)
    fates = read_ledger(ledger)
    for fate in fates:
        taken[fate.spec.recording].append(fate.spec.start)
    catalog = StoreCatalog(store, holdout=0.0)
    from online.config import load_preset

    clip, wrong = load_preset("demo", SETTINGS).stream.clip, []
    for name, starts in taken.items():
        length = catalog.commit(name).length
        planned = [spec.start for spec in catalog.clips(name, clip, length=length, closed=True)]
        if starts != planned[: len(starts)]:
            wrong.append(name)
    catalog.close()
    return len(fates), wrong


def soak(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        setup = Soak(folder, options, stack)
        checker = Checker(setup.store)
        began = time.time()
        middle, end = began + 30 * options.minutes, began + 60 * options.minutes
        kill_at = began + 30
        turns = stack.enter_context(attacks_in_turn(setup.address))
        while (now := time.time()) < end:
            with suppress(IngestError):  # a recording that has just been begun
                checker.look()
            setup.watch()
            if kill_at <= now < middle:
                setup.kill_one()
                kill_at = time.time() + setup.rng.uniform(10, 30)
            time.sleep(1.0)
            print(f"\r{now - began:.0f} s, {len(checker.wrong)} wrong", end="", file=sys.stderr)
        setup.finish()
        checker.look()
    return summed_up(setup, checker, turns, middle)


def summed_up(setup: Soak, checker: Checker, turns: Counter[str], middle: float) -> dict[str, Any]:
    store = open_store(setup.store)
    wrong, cameras = list(checker.wrong), {}
    for kind in ("udp", "lavfi", "push"):
        found = {name: r for name, r in checker.found.items() if name.startswith(kind)}
        counters = [store.commit(name).counters for name in found]
        cameras[kind] = {
            "recordings": len(found),
            "frames": sum(r.length for r in found.values()),
            "missing": sum(r.missing for r in found.values()),
            "dropped": sum(c.dropped for c in counters),
            "damaged_packets": sum(c.corrupt_packets for c in counters),
            "breaks": sum(r.gaps for r in found.values()) - len(found),
            "worst_mse": max(r.worst_mse for r in found.values()),
            "latest_seconds": max(r.latest_seconds for r in found.values()),
        }
        if kind != "udp":  # of lost datagrams the camera cannot know how many frames they were
            for name, recording in found.items():
                commit = store.commit(name)
                sent, decoded = recording.last + 1, commit.counters.decoded
                if commit.complete and decoded != sent:
                    wrong.append(f"{name}: {decoded} decoded, {sent} sent")
                if sent - recording.missing != recording.length:
                    wrong.append(f"{name}: {recording.length} stored, {sent} sent")
    last_push = max((n for n in checker.found if n.startswith("push")), key=_number)
    if (sent := checker.found[last_push].last + 1) != setup.pushed.value:
        wrong.append(f"{last_push}: {sent} found, {setup.pushed.value} pushed")
    trainers = {}
    for number in range(2):
        path = setup.folder / f"trainer-{number}"
        clips, bad = clips_out_of_order(path.with_suffix(".ledger"), store)
        wrong += [f"trainer {number}: clips of {name} are not those of the plan" for name in bad]
        settled, longest = longest_waits(path.with_suffix(".waits"), setup.unsettled)
        trainers[number] = {"clips": clips, "longest_wait": settled, "with_restarts": longest}
    return {
        "cameras": cameras,
        "trainers": trainers,
        "kills": setup.kills,
        "attacks": turns,
        "lost_datagrams": setup.lost.value,
        "mb_per_hour": {n: slope_mb_per_hour(s, middle + 30) for n, s in setup.memory.items()},
        "mb": {n: s[-1][1] for n, s in setup.memory.items()},
        "wrong": wrong,
    }


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description="Cameras, trainers and a hostile peer, for long.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of kills and loss")
    parser.add_argument("--loss", type=float, default=0.01, help="share of datagrams")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        found = soak(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps(found, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    sys.exit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
