"""Memory of a server that sends all clips of a store over and over, with and without giving back
the holes between what it keeps.

    python benchmarks/queue/server_memory.py [--sides 128 64 32] [--passes 4]

Each store has more pixels than the 256 MiB that a server keeps. Memory is resident, in MB, at the
end of each pass; CPU seconds and waiting are of all passes but the first, which fills the cache.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from hostile import RECORDINGS, Resident, make_store, served, take_all

PIXEL_BYTES = 660_000_000
SERVE = """
import runpy
from online.queue import server
{change}
runpy.run_module("setcon", run_name="__main__", alter_sys=True)
"""
WAYS = {"kept": "server.give_back_holes = lambda: None", "given back": ""}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(store: Path, change: str, passes: int) -> str:
    """Memory after each pass, and what all but the first took."""
    with served(store, ("-c", SERVE.format(change=change))) as (address, pid):
        resident = Resident(pid)
        take_all(address)
        memory, cpu, began = [resident.now()], cpu_seconds(pid), time.monotonic()
        for _ in range(passes - 1):
            take_all(address)
            memory.append(resident.now())
        cpu, took = cpu_seconds(pid) - cpu, time.monotonic() - began
    return f"{' '.join(f'{mb:.0f}' for mb in memory)} MB; {cpu:.2f} s of CPU in {took:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of a server.")
    parser.add_argument("--sides", nargs="*", type=int, default=[128, 64, 32])
    parser.add_argument("--passes", type=int, default=4)
    options = parser.parse_args()
    for side in options.sides:
        length = PIXEL_BYTES // (RECORDINGS * side * side * 3) // 64 * 64
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            make_store(store, side=side, length=length)
            for way, change in WAYS.items():
                print(
                    f"{side}x{side}, {way:10}: {watched(store, change, options.passes)}", flush=True
                )


if __name__ == "__main__":
    main()
