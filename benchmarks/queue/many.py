"""A store of many short recordings: when a trainer has its first clip, and what planning takes.

    python benchmarks/queue/many.py STORE [make] [serve] [info] [plan] [--recordings 5000]
                                    [--clips 100000000] [--json FILE]

make   recordings of 200 frames of 16x16: a few by the store's own writer, the others copies
serve  `setcon serve` in a process of its own, and a trainer that asks for all of it: seconds from
       the start of the process to the first clip and to the hundredth, and what the server
       computed until then; sessions opened again; and the same for a trainer that comes back with
       the cursor of the hundredth
info   `setcon info STORE --json`
plan   one shuffled plan of so many clips, of so many recordings of which there are only the commit
       records: STORE is made and must not be there

Run in a checkout of an older version, with this script, it measures that: stores and cursors are
the same. `cpu` is what a process computed, which other work on the machine does not change.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np

from ingest.frame import Frames
from ingest.open import open_or_create_store, open_store
from ingest.store.protocols import Store
from ingest.store.records import CommitRecord, Counters, RecordSettings, Source
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor
from online.clips.plan import extents_now, make_plan
from online.clips.request import ClipRequest
from online.errors import ServerSilent
from online.queue.client import Client

FRAMES, SIDE = 200, 16
WRITTEN = 16
CLIPS = 100
PATIENCE_SECONDS = 120.0


def make(path: Path, count: int) -> dict[str, float]:
    """Write the first recordings that are missing of `count`, and copy them to the others.

    A copy is a recording like any other, which does not know its name.
    """
    store = open_or_create_store(path, durable=False)
    there = set(store.recordings())
    names = [name for name in (f"r{i:06d}" for i in range(count)) if name not in there]
    started = time.perf_counter()
    for number, name in enumerate(names):
        if number < WRITTEN:
            write(store, name)
        else:
            recordings = path / "recordings"
            shutil.copytree(recordings / names[number % WRITTEN], recordings / name)
    return {"made": len(names), "make_seconds": time.perf_counter() - started}


def write(store: Store, name: str) -> None:
    """A square that wanders over one colour."""
    rng = np.random.default_rng(int(name[1:]))
    images = np.broadcast_to(rng.integers(0, 255, 3, np.uint8), (FRAMES, SIDE, SIDE, 3)).copy()
    colour, at = rng.integers(0, 255, 3, np.uint8), rng.integers(0, SIDE - 4, 2)
    for image in images:
        at = np.clip(at + rng.integers(-1, 2, 2), 0, SIDE - 4)
        image[at[0] : at[0] + 4, at[1] : at[1] + 4] = colour
    gap = np.zeros(FRAMES, np.bool_)
    gap[0] = True
    frames = Frames(images=images, pts_ns=np.arange(FRAMES) * 33_333_333, gap=gap)
    counters = Counters(decoded=FRAMES, stored=FRAMES, gaps=1)
    with store.writer(
        name,
        source=Source(path=name, size_bytes=1, digest=name),
        settings=RecordSettings(size=SIDE),
        height=SIDE,
        width=SIDE,
    ) as writer:
        block = writer.block_length
        for first in range(0, FRAMES - FRAMES % block, block):
            writer.append(frames.part(first, first + block), counters)
        tail = frames.part(FRAMES - FRAMES % block, FRAMES)
        writer.finish(tail if len(tail) else None, counters)


@contextmanager
def serving(store: Path) -> Iterator[tuple[str, float, int]]:
    """`setcon serve` in a process of its own; its address, when it was started, its id."""
    with tempfile.TemporaryDirectory() as folder:  # of mode 0700, as the server asks for
        address = f"ipc://{folder}/s"
        started = time.perf_counter()
        command = [sys.executable, "-m", "setcon", "serve", str(store), "--bind", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield address, started, process.pid
        finally:
            process.terminate()
            process.wait()


def served(store: Path, recordings: str) -> dict[str, float]:
    """Seconds to the first clip and to the last of a few, from scratch and from a cursor."""
    found: dict[str, float] = {}
    cursor = None
    for name in ("new", "resumed"):
        with serving(store) as (address, started, pid), Client(address) as client:
            client.open(ClipRequest(order="shuffled", recordings=recordings), cursor=cursor)
            for number in range(CLIPS):
                try:
                    delivery = client.next_clip(PATIENCE_SECONDS)
                except ServerSilent:
                    break
                assert delivery is not None
                cursor = delivery.cursor
                if number in (0, CLIPS - 1):
                    found[f"{name}_{number + 1}_seconds"] = time.perf_counter() - started
                    found[f"{name}_{number + 1}_cpu"] = cpu_of(pid)
            found[f"{name}_reconnects"] = client.counters.reconnects
            found[f"{name}_cpu"] = cpu_of(pid)
    return found


def cpu_of(pid: int) -> float:
    """Seconds that a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def info(store: Path) -> dict[str, float]:
    """Seconds of the command."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "setcon", "info", str(store), "--json"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"info_seconds": time.perf_counter() - started, "info_cpu": cpu}


def plan(path: Path, recordings: int, clips: int) -> dict[str, float]:
    """What looking at the store and making a plan takes."""
    store = open_store(path, create_format="zarr")
    length = clips // recordings
    for number in range(recordings):
        commit = CommitRecord(
            length=length,
            complete=True,
            height=SIDE,
            width=SIDE,
            chunk_length=64,
            source=Source(path="", size_bytes=1, digest=str(number)),
            settings=RecordSettings(size=SIDE),
            first_pts_ns=0,
            last_pts_ns=length * 33_333_333,
            breaks=(0,),
        )
        folder = path / "recordings" / f"r{number:06d}"
        folder.mkdir()
        (folder / "commit.json").write_bytes(msgspec.json.encode(commit))
    request = ClipRequest(clip=ClipConfig(clip_length=1), order="shuffled")
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    with closing(StoreCatalog(store, holdout=0.0)) as catalog:
        cursor = Cursor(extents=extents_now(catalog, "*", follow=False))
        looked = time.process_time()
        made = make_plan(catalog, request, order="shuffled", cursor=cursor)
        first = made.clips[0]
    done, after = time.process_time(), resource.getrusage(resource.RUSAGE_SELF)
    assert first.length == request.clip.frames
    return {
        "planned_clips": len(made.clips),
        "look_cpu": looked - started,
        "plan_cpu": done - looked,
        "plan_grew_mb": (after.ru_maxrss - before.ru_maxrss) / 1000,
    }


def main() -> None:
    """Do what is asked for, and print the figures."""
    parser = argparse.ArgumentParser(description="A store of many short recordings.")
    parser.add_argument("store", type=Path)
    parser.add_argument("what", nargs="*", default=["make", "serve", "info"])
    parser.add_argument("--recordings", type=int, default=5000)
    parser.add_argument("--clips", type=int, default=10**8)
    parser.add_argument("--glob", default="*", help="recordings that are asked for")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: dict[str, float] = {}
    if "make" in asked.what:
        found |= make(asked.store, asked.recordings)
    if "serve" in asked.what:
        found |= served(asked.store, asked.glob)
    if "info" in asked.what:
        found |= info(asked.store)
    if "plan" in asked.what:
        found |= plan(asked.store, asked.recordings, asked.clips)
    print(json.dumps(found, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
