"""Clips from server to trainer: against bare sockets, through the whole path, and under a stall.

    python benchmarks/queue/serving.py [throughput] [path] [stall] [wait] [--seconds 3] [--rounds 5]
                                       [--stalled 600] [--json FILE]

throughput  messages of a clip's size per second over bare PUSH/PULL, and clips through server and
            client, which hold all frames in memory here: the cost of protocol and checksums
path        distinct frames per second from a store on disk through server, client and batch,
            against reading and batching in one process
stall       memory of either end while the other is stopped
wait        share of each training step that a run of a preset waits for data

Every pair takes turns in one run; figures are medians, of wall time.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import numpy as np
import zmq
from msgspec.structs import replace

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.records import RecordSettings, Source
from ingest.video.reader import Counters
from online.clips.catalog import StoreCatalog
from online.clips.clip import Clip, ClipConfig
from online.clips.config import CREDIT_BYTES
from online.clips.request import ClipRequest
from online.errors import ServerSilent
from online.queue.address import bound
from online.queue.client import Client
from online.queue.server import Server, server_socket
from online.queue.server_process import ServerProcess
from online.queue.stream import ServeConfig
from online.training.batch import collate

CLIP = ClipConfig(clip_length=32)
WANT = ClipRequest(clip=CLIP)
SIDE = 128
CLIP_NBYTES = CLIP.frames * SIDE * SIDE * 3
CONTEXT = multiprocessing.get_context("spawn")


class WarmCatalog(StoreCatalog):
    """A store whose clips stay in memory once they were read."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_store(path), holdout=0.0)
        self._warm: dict[tuple[str, int, int], Frames] = {}

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames, from memory where they were asked for before."""
        key = (recording, start, length)
        if key not in self._warm:
            self._warm[key] = super().fetch(recording, start, length, masks=masks)
        return self._warm[key]


def serve_warm(store: Path, address: str, pipe: Pipe) -> None:
    """Serve from memory until killed."""
    with zmq.Context() as context, closing(WarmCatalog(store)) as catalog:
        socket = server_socket(context)
        with bound(socket, address) as endpoint:
            pipe.send(endpoint)
            server = Server(catalog, socket, ServeConfig(holdout=0.0))
            wait = 0.0
            while True:
                wait = server.step(wait)


def push(address: str, pipe: Pipe) -> None:
    """Send messages of a clip's size until killed."""
    images = memoryview(bytearray(CLIP_NBYTES))
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.sndhwm = max(1, CREDIT_BYTES // CLIP_NBYTES)  # as much under way as credit is
        socket.bind(address)
        pipe.send(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        while True:
            socket.send_multipart([b"header", images], copy=False)


@contextmanager
def running(target: Callable[..., None], *args: object) -> Iterator[str]:
    """A process that says where it can be reached."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def bare(address: str, seconds: float) -> float:
    """Bytes per second through PUSH and PULL."""
    with (
        running(push, address) as endpoint,
        zmq.Context() as context,
        context.socket(zmq.PULL) as socket,
    ):
        socket.rcvhwm = max(1, CREDIT_BYTES // CLIP_NBYTES)
        socket.connect(endpoint)
        return rate(lambda: sum(len(part) for part in socket.recv_multipart(copy=False)), seconds)


def clips(store: Path, address: str, seconds: float, *, checksum: bool) -> float:
    """Bytes per second of clips through server and client, from memory to memory."""
    with (
        running(serve_warm, store, address) as endpoint,
        Client(endpoint, checksum=checksum) as client,
    ):
        client.open(WANT)
        return rate(lambda: _taken(client).nbytes, seconds, warm=2 * RECORDED_CLIPS)


def rate(take: Callable[[], int], seconds: float, *, warm: int = 40) -> float:
    """What `take` gives per second, after some calls that do not count."""
    for _ in range(warm):
        take()
    total, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        total += take()
    return total / passed


def _taken(client: Client) -> Clip:
    delivery = client.next_clip(30.0)
    assert delivery is not None
    return delivery.clip


RECORDED_CLIPS = 24


def make_store(folder: Path, *, num_clips: int = RECORDED_CLIPS) -> Path:
    """A recording of smooth, moving pictures with a little noise, a given number of clips long."""
    store = open_store(folder / "store", create_format="zarr")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    with store.writer(
        "moving",
        source=Source(path="moving"),
        settings=RecordSettings(size=SIDE),
        height=SIDE,
        width=SIDE,
    ) as writer:
        length = num_clips * CLIP.clip_length + CLIP.overlap
        for start in range(0, length, writer.block_length):
            n = np.arange(start, min(length, start + writer.block_length))
            waves = [
                np.sin((x + s * n[:, None, None]) / 17) * np.cos(y / p)
                for s, p in ((1, 13), (2, 19), (3, 29))
            ]
            pictures = 128 + 100 * np.stack(waves, axis=-1)
            pictures += rng.normal(0, 2, pictures.shape)
            frames = Frames(
                images=pictures.clip(0, 255).astype(np.uint8),
                pts_ns=(n * 1e9 / 30).astype(np.int64),
                gap=n == 0,
            )
            if len(n) == writer.block_length:
                writer.append(frames, Counters())
            else:
                writer.finish(frames, Counters())
    return folder / "store"


def throughput(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Ratios of clips to bare messages."""
    store = make_store(folder)
    ipc = f"ipc://{folder}/socket/s"
    (folder / "socket").mkdir(mode=0o700)
    tcp = "tcp://127.0.0.1:*"
    variants: dict[str, Callable[[], float]] = {
        "ipc, bare PUSH/PULL": lambda: bare(f"ipc://{folder}/socket/b", options.seconds),
        "ipc, clips": lambda: clips(store, ipc, options.seconds, checksum=False),
        "tcp, bare PUSH/PULL": lambda: bare(tcp, options.seconds),
        "tcp, clips": lambda: clips(store, tcp, options.seconds, checksum=False),
        "tcp, clips with checksums": lambda: clips(store, tcp, options.seconds, checksum=True),
    }
    return table(variants, options.rounds, "GB/s", 1e9)


def path(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Distinct frames per second, which are triplets per second."""
    store = make_store(folder, num_clips=240)
    request = replace(WANT, order="stream")

    def served(take: Callable[[Client], int]) -> float:
        with (
            ServerProcess(store, ServeConfig(holdout=0.0)) as server,
            Client(server.address) as client,
        ):
            client.open(request)
            return rate(lambda: take(client), options.seconds)

    def one(client: Client) -> int:
        _taken(client)
        return CLIP.clip_length

    def batch(client: Client) -> int:
        collate([_taken(client) for _ in range(8)], CLIP)
        return 8 * CLIP.clip_length

    def reading() -> float:
        with closing(StoreCatalog(open_store(store), holdout=0.0)) as catalog:
            specs = catalog.clips("moving", CLIP, length=240 * CLIP.clip_length + 2, closed=True)
            at = 0

            def read() -> int:
                nonlocal at
                at = (at + 1) % len(specs)
                catalog.fetch("moving", specs[at].start, specs[at].length)
                return CLIP.clip_length

            return rate(read, options.seconds)

    variants = {
        "read in one process": reading,
        "served and received": lambda: served(one),
        "served, received and batched": lambda: served(batch),
    }
    return table(variants, options.rounds, "distinct frames/s", 1)


def table(
    variants: dict[str, Callable[[], float]], rounds: int, unit: str, scale: float
) -> dict[str, float]:
    """Median rate of each variant, and its share of the latest one that is a baseline."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name, measure in variants.items():
            print(f"\rround {turn + 1} of {rounds}: {name:50}", end="", file=sys.stderr)
            found[name].append(measure() / scale)
    print(file=sys.stderr)
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    baseline = 1.0
    for name, median in medians.items():
        if "bare" in name or "one process" in name:
            baseline = median
        print(f"{name:42} {median:12.3f} {unit}  {median / baseline:6.2f}")
    return medians


def take_until_killed(address: str, pipe: Pipe) -> None:
    """A trainer that does nothing with its clips."""
    with Client(address) as client:
        client.open(WANT)
        _taken(client)
        pipe.send(os.getpid())
        while True:
            with suppress(ServerSilent):  # which is stopped for longer than a clip is waited for
                _taken(client)
            time.sleep(0.005)


def stall(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Growth in MB of either end while the other is stopped, at a credit of 64 MiB."""
    store = make_store(folder)
    grown: dict[str, float] = {}
    with (
        ServerProcess(store, ServeConfig(holdout=0.0)) as server,
        running(take_until_killed, server.address) as trainer,
    ):
        time.sleep(3.0)
        assert server.pid is not None
        ends = {"trainer": int(trainer), "server": server.pid}
        for stopped, other in (("trainer", "server"), ("server", "trainer")):
            before = highest = _resident_mb(ends[other])
            os.kill(ends[stopped], signal.SIGSTOP)
            until = time.monotonic() + options.stalled
            while time.monotonic() < until:
                time.sleep(0.5)
                highest = max(highest, _resident_mb(ends[other]))
            os.kill(ends[stopped], signal.SIGCONT)
            grown[f"{other} while the {stopped} is stopped"] = highest - before
            time.sleep(5.0)
    for name, megabytes in grown.items():
        print(f"{name:42} +{megabytes:8.1f} MB in {options.stalled:g} s")
    return grown


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Waits:
    """Share of each step's time that was spent waiting for data."""

    shares: list[float]

    def text(self, name: str) -> str:
        """Median and 99th percentile."""
        median, p99 = np.percentile(self.shares, [50, 99])
        return f"{name:42} median {median:.2%}, p99 {p99:.2%} of {len(self.shares)} steps"


def wait(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Waiting for data in runs of the demo preset at 32x32 and at 128x128."""
    import torch

    from online.config import load_preset
    from online.session.clock import RunClock
    from online.session.start import train_on_store

    found: dict[str, float] = {}
    store = make_store(folder, num_clips=120)
    small = ["training.batch_clips=2", "stream.clip_length=8"]
    settings = {
        "128x128": small,
        "128x128, one sample per insert": [*small, "replay.samples_per_insert=1"],
    }
    real = RunClock.step
    for name, more in settings.items():
        marks: list[tuple[float, float]] = []

        def step(clock: RunClock, triplets: int) -> None:
            real(clock, triplets)
            marks.append((time.monotonic(), clock._waited))  # noqa: B023

        RunClock.step = step  # type: ignore[method-assign]
        config = load_preset("demo", ["training.steps=60", "probe.steps=2", *more])
        train_on_store(store, folder / name.replace(" ", "-"), config)
        torch.set_num_threads(1)
        shares = [(w1 - w0) / (t1 - t0) for (t0, w0), (t1, w1) in pairwise(marks[10:])]
        print(Waits(shares).text(f"demo preset, {name}"))
        found[name] = statistics.median(shares)
    RunClock.step = real  # type: ignore[method-assign]
    return found


def main() -> None:
    options = _options()
    parts = {"throughput": throughput, "path": path, "stall": stall, "wait": wait}
    found: dict[str, dict[str, float]] = {}
    for name in options.what or parts:
        folder = Path(tempfile.mkdtemp(prefix="serving-"))
        try:
            found[name] = parts[name](folder, options)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Clips from server to trainer.")
    parser.add_argument("what", nargs="*", choices=["throughput", "path", "stall", "wait"])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stalled", type=float, default=600.0, help="seconds that an end stops")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
