"""An epoch of shuffled clips from object storage: requests, bytes and clips per second.

    python benchmarks/ingest/object_store.py

An S3 server in a process of its own waits before the first byte of each answer. A stream of clips,
as a server of clips has one for each trainer, is taken as fast as it comes: with reading ahead, and
without (`SETCON_CACHE_GB=0`: each chunk is read when it is needed). Nothing is kept from one run to
the next. By default 2,560 frames in one recording, a fifth held out: 64 clips of 32 triplets.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.records import Counters, RecordSettings, Source
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.queue import messages
from online.queue.stream import ServeConfig, Stream

URL = "s3://bucket/store"
GIGABYTES = {"without reading ahead": "0", "with reading ahead": "10"}
"""That may be kept on this machine."""
SERVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from object_server import ObjectServer
with ObjectServer() as server:
    print(json.dumps(server.environment), flush=True)
    for line in sys.stdin:
        print(json.dumps(server.requests), flush=True)
        server.requests.clear()
        server.delay_seconds = float(line)
"""


class Server:
    """The S3 server as a process of its own, which shares no interpreter with readers."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", SERVER, str(Path(__file__).parent)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        os.environ |= self._line()

    def requests(self, delay_seconds: float) -> dict[str, int]:
        """What was asked for since the last call; from now on answers take `delay_seconds`."""
        assert self._process.stdin is not None
        print(delay_seconds, file=self._process.stdin, flush=True)
        return self._line()

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _line(self) -> dict:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def fill(side: int, frames_in_all: int, recordings: int) -> int:
    """Recordings of as many frames each; returns the bytes of the frames of all clips."""
    store = open_store(URL, create_format="zarr")
    random = np.random.default_rng(0)
    texture = random.integers(0, 240, (side, side, 3), np.uint8)
    count = frames_in_all // recordings
    for number in range(recordings):
        with store.writer(
            f"{number:05}",
            source=Source(path=f"/{number}.mp4", digest=f"{number}"),
            settings=RecordSettings(size=side),
            height=side,
            width=side,
        ) as writer:
            for start in range(0, count, writer.block_length):
                index = np.arange(start, min(start + writer.block_length, count))
                noise = random.integers(0, 16, (len(index), side, side, 3), np.uint8)
                frames = Frames(noise + np.roll(texture, start), index * 33_000_000, index == 0)
                counted = Counters(decoded=int(index[-1]) + 1, stored=int(index[-1]) + 1, gaps=1)
                whole = len(index) == writer.block_length
                writer.append(frames, counted) if whole else writer.finish(frames, counted)
    return sum(map(store.size_bytes, store.recordings())) * 4 // 5


def epoch() -> tuple[int, float, float]:
    """Clips of an epoch; seconds to the first, and to the last."""
    hello = messages.Hello(
        session="0123456789",
        credit=1 << 50,
        request=ClipRequest(clip=ClipConfig(), order="shuffled", max_epochs=1),
    )
    with closing(StoreCatalog(open_store(URL))) as catalog:
        begun, first, clips = time.monotonic(), 0.0, 0
        stream = Stream(catalog, hello, ServeConfig())
        while True:
            parts = stream.next_message(time.monotonic(), lambda cost: True)
            if parts is None:
                continue
            is_clip = stream.sent() > 0
            clips += is_clip
            first = first or (time.monotonic() - begun) * is_clip
            if not is_clip and clips:
                return clips, first, time.monotonic() - begun


@dataclass(frozen=True)
class Epoch:
    """What one took."""

    clips: int
    gets: int
    nbytes: int
    first_seconds: float
    seconds: float

    @property
    def rate(self) -> float:
        """Clips a second, the start included."""
        return self.clips / self.seconds


def measured(server: Server, delay: float, clip_bytes: int) -> Epoch:
    """Read an epoch, and print a line."""
    server.requests(delay)
    clips, first, seconds = epoch()
    asked = server.requests(0.0)
    gets = asked.get("GET", 0) + asked.get("LIST", 0) + asked.get("HEAD", 0)
    found = Epoch(clips, gets, asked.get("bytes", 0), first, seconds)
    print(
        f"{delay * 1e3:5.0f} ms  {clips} clips  {gets / clips:.2f} GET a clip  "
        f"{found.nbytes / clip_bytes:.2f} of the bytes  first clip {first:.2f} s  "
        f"{found.rate:.1f} clips/s",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--delays", type=float, nargs="+", default=[0.0, 0.05])
    parser.add_argument("--frames", type=int, default=2560, help="in all")
    parser.add_argument("--recordings", type=int, default=1, help="that hold the frames")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--only-ahead", action="store_true", help="not also without reading ahead")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with closing(Server()) as server:
        clip_bytes = fill(options.side, options.frames, options.recordings)
        raw_bytes = options.frames * 4 // 5 * options.side**2 * 3
        print(
            f"{clip_bytes / 1e6:.0f} MB of compressed frames in the training part, "
            f"{clip_bytes / raw_bytes:.2f} of raw"
        )
        for delay in options.delays:
            rates = {}
            for name, size in list(GIGABYTES.items())[options.only_ahead :]:
                print(name)
                epochs = []
                for _ in range(options.repeat):
                    with tempfile.TemporaryDirectory() as folder:
                        os.environ |= {"SETCON_CACHE": folder, "SETCON_CACHE_GB": size}
                        epochs.append(measured(server, delay, clip_bytes))
                rates[name] = median(epoch.rate for epoch in epochs)
                what = {"delay": delay, "ahead": size != "0"}
                found += [what | asdict(epoch) for epoch in epochs]
            if not options.only_ahead:
                slowest, *_ = rates.values()
                gain = rates["with reading ahead"] / slowest
                print(f"{delay * 1e3:.0f} ms: {gain:.1f} times the clips per second\n")
    if options.json is not None:
        told = {"clip_bytes": clip_bytes, "stored_share": clip_bytes / raw_bytes, "epochs": found}
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
