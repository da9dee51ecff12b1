"""Peers that want everything: memory of a server and of a trainer, and how long others wait.

    python benchmarks/queue/hostile.py [server | trainer] [--attacks NAME...] [--seconds 20]
                                       [--json FILE]

server   `setcon serve` and, one after the other and then all together: 14 trainers whose clips are
         as long as can be asked for; 233 more sessions, half of which never read; requests of all
         kinds as fast as they are taken; one request in endless parts; and, by themselves, four
         trainers that leave and come back all the time, and cheap requests without ZeroMQ. Every
         second another trainer asks for its first clip.
trainer  a trainer whose server sends one message in endless parts

Memory is resident, over that of an idle server which has sent the whole store once, so that its
cache of decoded chunks is full.
"""

import argparse
import json
import multiprocessing
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from zmtp import frame, send_endless_parts, shake_hands

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.records import RecordSettings, Source
from ingest.video.reader import Counters
from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.errors import OnlineError
from online.queue import messages
from online.queue.client import Client

CONTEXT = multiprocessing.get_context("spawn")
SIDE, RECORDINGS, LENGTH = 128, 3, 4480
PATIENCE = 20.0
"""How long another trainer waits for its first clip."""
DEAR = 500
"""Of so many requests one asks for frames, for a list or for a plan."""
Attack = Callable[[str, Any], None]


def hello(session: int, clip_length: int) -> bytes:
    want = ClipRequest(clip=ClipConfig(clip_length=clip_length), seed=session)
    return messages.encode(messages.Hello(session=f"{session:08}", credit=1 << 50, request=want))


def stay(address: str, clip_lengths: list[int], count: Any) -> None:
    """Keep sessions open; every second one reads, and grants credit for everything."""
    context, peers = zmq.Context(), []
    for number, clip_length in enumerate(clip_lengths):
        peer = context.socket(zmq.DEALER)
        peer.rcvhwm = 1
        peer.connect(address)
        peer.send(hello(number, clip_length))
        peers.append(peer)
    poller, alive_at = zmq.Poller(), time.monotonic()
    for peer in peers[::2]:
        poller.register(peer, zmq.POLLIN)
    while True:
        for peer, _ in poller.poll(100):
            part = peer.recv_multipart(copy=False)[0]
            with suppress(OnlineError):
                kind = messages.decode_reply(part.buffer)
                count.value += isinstance(kind, messages.ClipHeader)
        if time.monotonic() - alive_at > 1.0:
            alive_at = time.monotonic()
            for number, peer in enumerate(peers):
                with suppress(zmq.Again):
                    peer.send(messages.encode(messages.Alive(f"{number:08}")), zmq.NOBLOCK)


def long_clips(address: str, count: Any) -> None:
    """14 trainers that each ask for a whole recording at once."""
    stay(address, [1 << 20] * 14, count)


def sessions(address: str, count: Any) -> None:
    """With those of the others 255, of clips as usual."""
    stay(address, [32] * 233, count)


def requests(address: str, count: Any) -> None:
    """Requests of all kinds from eight trainers, as fast as they are taken."""
    context = zmq.Context()
    peers = [context.socket(zmq.DEALER) for _ in range(8)]
    for peer in peers:
        peer.rcvhwm = 10
        peer.connect(address)
    cheap = [
        messages.encode(messages.Credit("00000000", 1 << 50)),
        messages.encode(messages.Alive("00000000")),
        b"noise",
    ]
    dear = [
        messages.encode(messages.List(1)),
        messages.encode(messages.Fetch(request=1, recording="r0", start=0, length=1 << 20)),
        hello(99, 1),
    ]
    sent = 0
    while True:
        taken = 0
        for peer in peers:
            with suppress(zmq.Again):
                while True:
                    peer.recv_multipart(zmq.NOBLOCK)
            with suppress(zmq.Again):
                for number in range(50):
                    is_dear = sent % DEAR == 0
                    part = dear[sent // DEAR % 3] if is_dear else cheap[number % 3]
                    peer.send(part, zmq.NOBLOCK)
                    sent += 1
                    taken += 1
        count.value = sent
        if not taken:
            time.sleep(0.001)


def flood(address: str, count: Any) -> None:
    """Requests that cost little, on one connection without ZeroMQ: a thousand in one call."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    cheap = messages.encode(messages.Alive("00000000")), b"noise"
    many = frame(cheap[0], more=False) * 990 + frame(cheap[1], more=False) * 10
    with socket.create_connection((host, int(port)), 5) as peer:
        shake_hands(peer, b"DEALER")
        threading.Thread(target=read_all, args=(peer,), daemon=True).start()
        while True:
            peer.sendall(many)
            count.value += 1000


def read_all(peer: socket.socket) -> None:
    """Read answers, so that they hold nobody up."""
    while peer.recv(1 << 16):
        pass


def endless(address: str, count: Any) -> None:
    """One request in endless parts, and then the next."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    while True:
        count.value += 1
        with suppress(OSError), socket.create_connection((host, int(port)), 5) as peer:
            send_endless_parts(peer, b"DEALER")


def comers(address: str, count: Any) -> None:
    """Four trainers that leave and come back without end, on the same connections."""
    context = zmq.Context()
    peers = [context.socket(zmq.DEALER) for _ in range(4)]
    for peer in peers:
        peer.connect(address)
    while True:
        for peer in peers:
            with suppress(zmq.Again):
                while True:
                    peer.recv_multipart(zmq.NOBLOCK)
            with suppress(zmq.Again):
                peer.send(messages.encode(messages.Bye(f"{count.value:08}")), zmq.NOBLOCK)
                peer.send(hello(count.value, 32), zmq.NOBLOCK)
        count.value += 1
        time.sleep(0.001)


ATTACKS: dict[str, list[Attack]] = {
    "long clips": [long_clips],
    "255 sessions": [long_clips, sessions],
    "requests": [requests],
    "more requests": [flood, flood],
    "endless parts": [endless],
    "coming and going": [comers],
    "all of these": [long_clips, sessions, requests, endless],
}


@contextmanager
def attacked(address: str, attacks: list[Attack]) -> Iterator[list[Synchronized]]:
    counts: list[Any] = [CONTEXT.Value("Q", 0) for _ in attacks]
    processes = [
        CONTEXT.Process(target=attack, args=(address, count), daemon=True)
        for attack, count in zip(attacks, counts, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        yield counts
    finally:
        for process in processes:
            process.kill()
            process.join()


class Resident:
    """The most that a process has had in memory since it was looked at."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak = self.now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def now(self) -> float:
        """In MB."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return pages * 4096 / 1e6

    def __enter__(self) -> "Resident":
        self.peak = self.now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            with suppress(OSError, IndexError):
                self.peak = max(self.peak, self.now())


def first_clip_seconds(address: str) -> float:
    """How long a trainer waits for its first clip; infinite where it gives up."""
    began = time.monotonic()
    with Client(address) as client:
        client.open(ClipRequest(clip=ClipConfig(), max_epochs=1))
        try:
            client.next_clip(PATIENCE)
        except OnlineError as error:
            print(f"    {error}")
            return float("inf")
    return time.monotonic() - began


def make_store(folder: Path, *, side: int = SIDE, length: int = LENGTH) -> None:
    """Recordings of `length` frames of `side` x `side` pixels each."""
    store = open_store(folder, create_format="zarr", durable=False)
    rows, columns = np.mgrid[:side, :side]
    for number in range(RECORDINGS):
        with store.writer(
            f"r{number}",
            source=Source(path="made", digest=str(number)),
            settings=RecordSettings(size=side),
            height=side,
            width=side,
        ) as writer:
            for start in range(0, length, writer.block_length):
                at = np.arange(start, start + writer.block_length)
                images = (rows * columns // 8 + 3 * at[:, None, None]).astype(np.uint8)
                frames = Frames(
                    images=np.repeat(images[..., None], 3, axis=-1),
                    pts_ns=at * 33_000_000,
                    gap=at == 0,
                )
                writer.append(frames, Counters())
            writer.finish(None, Counters())


def take_all(address: str) -> None:
    """Be sent every clip once."""
    with Client(address) as client:
        client.open(ClipRequest(clip=ClipConfig(), max_epochs=1))
        while client.next_clip(PATIENCE) is not None:
            pass


@contextmanager
def served(store: Path, program: Sequence[str] = ("-m", "setcon")) -> Iterator[tuple[str, int]]:
    """Address and process of a server that `program`, given to Python, is or becomes."""
    command = [sys.executable, *program, "serve", str(store), "--bind", "tcp://127.0.0.1:*"]
    said = (store.parent / "said").open("w")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], process.pid
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def server(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    make_store(folder / "store")
    found: dict[str, Any] = {}
    for name in options.attacks or ATTACKS:
        with served(folder / "store") as (address, pid):
            take_all(address)
            time.sleep(1.0)
            resident = Resident(pid)
            idle, waited, until = resident.now(), [], time.monotonic() + options.seconds
            with resident, attacked(address, ATTACKS[name]) as counts:
                time.sleep(3.0)  # until all have begun
                began, before = time.monotonic(), [count.value for count in counts]
                while time.monotonic() < until and (not waited or waited[-1] < PATIENCE):
                    waited.append(first_clip_seconds(address))
                    time.sleep(1.0)
                seconds = time.monotonic() - began
                rates = [(c.value - b) / seconds for c, b in zip(counts, before, strict=True)]
        found[name] = {
            "idle_mb": idle,
            "over_idle_mb": resident.peak - idle,
            "first_clip_seconds": waited,
            "a_second": rates,
        }
        print(
            f"{name:14} idle {idle:.0f} MB, {resident.peak - idle:+.0f} MB at most; first clip of "
            f"another trainer within {max(waited):.2f} s in {len(waited)} tries; "
            f"a second: {', '.join(f'{rate:,.0f}' for rate in rates)}",
            flush=True,
        )
    return found


def learn(address: str) -> None:
    with Client(address) as client:
        client.open(ClipRequest(clip=ClipConfig()))
        with suppress(OnlineError):
            client.next_clip(300.0)


def trainer(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for part_bytes in (64 << 10, 64):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"

            def answer() -> None:
                with suppress(OSError):
                    while True:
                        peer, _ = listening.accept()
                        with peer:
                            send_endless_parts(peer, b"ROUTER", part_bytes=part_bytes)  # noqa: B023

            threading.Thread(target=answer, daemon=True).start()
            process = CONTEXT.Process(target=learn, args=(address,), daemon=True)
            began = time.monotonic()
            process.start()
            assert process.pid is not None
            resident = Resident(process.pid)
            with resident:
                process.join(options.seconds)
            seconds = time.monotonic() - began
            process.kill()
            process.join()
        found[f"parts of {part_bytes} bytes"] = resident.peak
        print(f"parts of {part_bytes} bytes: {resident.peak:.0f} MB at most in {seconds:.1f} s")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Server and trainer under hostile peers.")
    parser.add_argument("what", nargs="?", choices=["server", "trainer"], help="both by default")
    parser.add_argument("--attacks", nargs="*", choices=list(ATTACKS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    parts, found = {"server": server, "trainer": trainer}, {}
    for name in [options.what] if options.what else parts:
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        try:
            found[name] = parts[name](folder, options)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
