"""Memory of a server that sends all clips of a store over and over, with and without giving back
the holes between what it keeps.

    python benchmarks/queue/server_memory.py [--sides 128 64 32] [--passes 4]

Each store has more pixels than the 256 MiB that a server keeps. Memory is resident, in MB, at the
end of each pass; CPU seconds and waiting are of all passes but the first, which fills the cache.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hostile
from hostile import make_store

from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.queue.client import Client

PIXEL_BYTES = 660_000_000
WAYS = {"kept": "server.give_back_holes = lambda: None", "given back": ""}
PROGRAM = """
import sys
from online.queue import server
{change}
sys.argv = ["setcon", "serve", {store!r}, "--bind", "tcp://127.0.0.1:*"]
import runpy
runpy.run_module("setcon", run_name="__main__")
"""


@contextmanager
def served(store: Path, change: str) -> Iterator[tuple[str, int]]:
    program = PROGRAM.format(change=change, store=str(store))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1], process.pid
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one_pass(address: str) -> int:
    """How many clips there are."""
    with Client(address) as client:
        client.open(ClipRequest(clip=ClipConfig(), max_epochs=1))
        count = 0
        while client.next_clip(30.0) is not None:
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of a server.")
    parser.add_argument("--sides", nargs="*", type=int, default=[128, 64, 32])
    parser.add_argument("--passes", type=int, default=4)
    options = parser.parse_args()
    for side in options.sides:
        hostile.SIDE = side
        hostile.LENGTH = PIXEL_BYTES // (hostile.RECORDINGS * side * side * 3) // 64 * 64
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            make_store(store)
            for way, change in WAYS.items():
                with served(store, change) as (address, pid):
                    resident, memory, clips = hostile.Resident(pid), [], 0
                    cpu, began = 0.0, time.monotonic()
                    for number in range(options.passes):
                        clips += one_pass(address)
                        memory.append(f"{resident.now():.0f}")
                        if number == 0:
                            cpu, began = cpu_seconds(pid), time.monotonic()
                    took = (
                        f"{cpu_seconds(pid) - cpu:.2f} s of CPU in {time.monotonic() - began:.2f} s"
                    )
                    print(f"{side}x{side}, {way:10}: {' '.join(memory)} MB; {took}", flush=True)


if __name__ == "__main__":
    main()
