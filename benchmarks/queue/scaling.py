"""What 1,000 and 100,000 hours cost, and what saturates: a simulation from measured figures.

    python benchmarks/queue/scaling.py [--set FIGURE=VALUE ...] [--check] [--json FILE]

    bucket ──GETs of blocks──▶ cache ─▶ decompression ─▶ serving thread ─▶ queue ─▶ trainer
              latency, links           cores             one a rank       credit   GPU

Each event of one rank is simulated: requests for blocks of 8 MiB, as soon as a clip that needs one
is within the 32 clips that are read ahead; their latency, drawn from a log-normal distribution; the
link; the cores that decompress; the thread that serves, in the order of the plan; the credit; and
the trainer. The plan is a shuffled epoch: 16 runs of 8 neighbouring clips, which share blocks, are
mixed. The other ranks are alike, and take their parts of what all of them share. What is busy for
most of the time limits the run; where nothing is, latency does.

FIGURE is a field of `Measured`; docs/scaling.md says where each comes from. `--check` compares the
simulation with `benchmarks/ingest/object_store.py` on the machine it runs on.
"""

import argparse
import heapq
import json
import math
import random
import re
import subprocess
import sys
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

BLOCK_BYTES = 8 << 20
CREDIT_BYTES = 64 << 20
CLIPS_AHEAD = 32
NEIGHBOURS, MIXED_RUNS = 8, 16
CLIPS = 40 * NEIGHBOURS * MIXED_RUNS
"""Simulated; the first tenth is not counted."""
MOSTLY = 0.9


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of one machine and one bucket, of frames of 128x128 in clips of 32 new ones."""

    side: int = 128
    """Height and width of the frames in pixels."""
    fps: float = 10.0
    """Frames that are stored of each second of footage."""
    clip_frames: int = 32
    """New frames of a clip."""
    stored_share: float = 0.65
    """Bytes in the store, of raw pixels."""
    object_frames: int = 1024
    """Frames of one object."""
    ingest_core_seconds: float = 0.288
    """Of one second of 1080p30."""
    block_seconds: float = 0.05
    """Median time to the first byte of an answer."""
    block_spread: float = 0.5
    """Standard deviation of that time's logarithm."""
    request_bytes: float = 90e6
    """A second, of one request."""
    link_bytes: float = 1.25e9
    """A second, of one machine."""
    bucket_gets: float = 5500.0
    """A second, for one prefix."""
    cache_bytes: float = 10e9
    """Of blocks that a machine keeps; with more footage, what is read is gone when it is needed
    again."""
    decompress_frames: float = 14_800.0
    """A second, by one core."""
    cores: int = 4
    """That one rank may use to decompress."""
    serving_frames: float = 9983.0
    """A second, by the thread that serves."""
    step_frames: float = 8200.0
    """A second, that one GPU learns from; the same frame again counts again."""
    planning_seconds: float = 3.1e-4
    """For one recording, once per start."""
    recording_hours: float = 0.5
    """Length of a recording."""

    @property
    def frame_bytes(self) -> float:
        """Of a frame in the store."""
        return self.stored_share * self.side**2 * 3

    @property
    def clip_bytes(self) -> float:
        """Of a clip in the queue: pixels, and the two frames before it."""
        return (self.clip_frames + 2) * self.side**2 * 3

    def blocks_of_run(self, store_bytes: float) -> float:
        """GETs for clips that are neighbours: on average, those of all blocks that they touch."""
        run_bytes = NEIGHBOURS * self.clip_frames * self.frame_bytes
        return run_bytes / BLOCK_BYTES + (store_bytes > self.cache_bytes)


@dataclass(frozen=True)
class Flow:
    """What one rank gets."""

    clips_per_second: float
    busy: dict[str, float]
    """The share of the time for which each part works."""

    @property
    def limit(self) -> str:
        """The part that all wait for."""
        part = max(self.busy, key=lambda name: self.busy[name])
        return part if self.busy[part] > MOSTLY else "latency"


def simulate(
    measured: Measured, *, samples_per_insert: float, ranks: int, store_bytes: float, seed: int = 0
) -> Flow:
    """Clips through the whole path of one rank of several, event by event."""
    rng = random.Random(seed)
    bucket = Bucket(measured, ranks, measured.blocks_of_run(store_bytes), rng)
    decompress = measured.clip_frames / measured.decompress_frames
    serve = measured.clip_frames / measured.serving_frames
    learn = measured.clip_frames * samples_per_insert / measured.step_frames
    cores = [0.0] * measured.cores
    may_wait = max(1, int(CREDIT_BYTES / measured.clip_bytes))
    served, served_at = 0.0, deque([0.0] * CLIPS_AHEAD, maxlen=CLIPS_AHEAD)
    learned, learned_at = 0.0, deque([0.0] * may_wait, maxlen=may_wait)
    warm_at, warm, runs_at = 0.0, CLIPS // 10, {}
    for clip, run in enumerate(shuffled_runs(rng)):
        if clip == warm:
            warm_at = learned
            bucket.link_seconds = bucket.gate_seconds = 0.0
        if run not in runs_at:
            runs_at[run] = bucket.arrival(served_at[0])
        ready = max(runs_at[run], served_at[0], heapq.heappop(cores)) + decompress
        heapq.heappush(cores, ready)
        served = max(served, ready, learned_at[0]) + serve
        served_at.append(served)
        learned = max(learned, served) + learn
        learned_at.append(learned)
    seconds, counted = learned - warm_at, CLIPS - warm
    busy = {
        "GETs of a prefix": bucket.gate_seconds / seconds,
        "link": bucket.link_seconds / seconds,
        "decompression": counted * decompress / measured.cores / seconds,
        "serving thread": counted * serve / seconds,
        "GPU": counted * learn / seconds,
    }
    return Flow(counted / seconds, busy)


def shuffled_runs(rng: random.Random) -> list[int]:
    """To which run of neighbours each clip of a plan belongs."""
    order = []
    for first in range(0, CLIPS // NEIGHBOURS, MIXED_RUNS):
        pool = [run for run in range(first, first + MIXED_RUNS) for _ in range(NEIGHBOURS)]
        rng.shuffle(pool)
        order += pool
    return order


class Bucket:
    """When the blocks of a run of clips arrive: three things are taken in turn."""

    def __init__(self, measured: Measured, ranks: int, blocks: float, rng: random.Random) -> None:
        """A run has so many blocks, on average."""
        self._measured, self._blocks, self._rng = measured, blocks, rng
        self._gate_each = ranks / measured.bucket_gets
        self._link_each = BLOCK_BYTES / measured.link_bytes
        self._gate_at = self._link_at = 0.0
        self._owed = 0.0
        self.gate_seconds = self.link_seconds = 0.0

    def arrival(self, asked: float) -> float:
        """When the last byte of a run is here."""
        self._owed += self._blocks
        arrived = asked
        while self._owed >= 1:
            self._owed -= 1
            arrived = max(arrived, self._block(asked))
        return arrived

    def _block(self, asked: float) -> float:
        self._gate_at = max(self._gate_at, asked) + self._gate_each
        first = self._gate_at + self._measured.block_seconds * math.exp(
            self._measured.block_spread * self._rng.gauss(0, 1)
        )
        self._link_at = max(self._link_at, first) + self._link_each
        self.gate_seconds += self._gate_each
        self.link_seconds += self._link_each
        return max(self._link_at, first + BLOCK_BYTES / self._measured.request_bytes)


def stored(hours: float, measured: Measured) -> dict[str, Any]:
    """What footage of so many hours takes to ingest, to keep, and to plan."""
    frames = 3600 * hours * measured.fps
    recordings = hours / measured.recording_hours
    return {
        "hours": hours,
        "recordings": recordings,
        "terabytes": frames * measured.frame_bytes / 1e12,
        "objects": frames / measured.object_frames + 6 * recordings,
        "ingest_core_hours": hours * measured.ingest_core_seconds,
        "planning_seconds": recordings * measured.planning_seconds,
    }


def learned(
    hours: float, measured: Measured, *, samples_per_insert: float, ranks: int
) -> dict[str, Any]:
    """What one pass over the footage takes."""
    frames = 3600 * hours * measured.fps
    store_bytes = frames * measured.frame_bytes
    flow = simulate(
        measured, samples_per_insert=samples_per_insert, ranks=ranks, store_bytes=store_bytes
    )
    clips = frames / measured.clip_frames
    new_frames = flow.clips_per_second * measured.clip_frames
    gets = flow.clips_per_second / NEIGHBOURS * measured.blocks_of_run(store_bytes)
    return {
        "hours": hours,
        "samples_per_insert": samples_per_insert,
        "ranks": ranks,
        "pass_hours": clips / flow.clips_per_second / ranks / 3600,
        "new_frames_per_second": new_frames * ranks,
        "megabytes_per_second": gets * ranks * BLOCK_BYTES / 1e6,
        "gets_per_second": gets * ranks,
        "cores_to_decompress": ranks * measured.cores * flow.busy["decompression"],
        "limit": flow.limit,
        "busy": flow.busy,
    }


def check(measured: Measured) -> None:
    """The same epoch simulated, and read from a server of this machine."""
    script = Path(__file__).parents[1] / "ingest" / "object_store.py"
    words = [sys.executable, str(script), "--side", "128", "--repeat", "3"]
    delays = ["0.02", "0.05", "0.1"]
    done = subprocess.run([*words, "--delays", *delays], capture_output=True, text=True, check=True)
    print(done.stdout)
    for delay in map(float, delays):
        here = replace(measured, block_seconds=delay, block_spread=0.0, stored_share=0.5)
        flow = simulate(here, samples_per_insert=0.0, ranks=1, store_bytes=0.0)
        print(f"{delay * 1e3:5.0f} ms  simulated {flow.clips_per_second:.1f} clips/s, {flow.limit}")


def main() -> None:
    options = _options()
    kinds = {name: type(value) for name, value in asdict(Measured()).items()}
    given: dict[str, Any] = {}
    for setting in options.set:
        if not (matched := re.fullmatch(r"(\w+)=(.+)", setting)) or matched[1] not in kinds:
            raise SystemExit(f"--set {setting}: FIGURE=VALUE, with one of {', '.join(kinds)}")
        given[matched[1]] = kinds[matched[1]](float(matched[2]))
    measured = replace(Measured(), **given)
    if options.check:
        return check(measured)
    kept = [stored(hours, measured) for hours in options.hours]
    passes = [
        learned(hours, measured, samples_per_insert=samples, ranks=ranks)
        for hours in options.hours
        for samples in options.samples_per_insert
        for ranks in options.ranks
    ]
    print("hours | recordings | TB | objects | core-hours to ingest | planning s")
    for row in kept:
        print(" | ".join(f"{value:,.3g}" for value in row.values()))
    print("hours | samples | ranks | pass, h | new frames/s | MB/s | GETs/s | cores | limit")
    for row in passes:
        *figures, limit, _ = row.values()
        print(" | ".join([*(f"{value:,.3g}" for value in figures), limit]))
    if options.json is not None:
        found = {"measured": asdict(measured), "stored": kept, "learned": passes}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", nargs="+", type=float, default=[1000, 100_000])
    parser.add_argument("--samples-per-insert", nargs="+", type=float, default=[1, 8])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--set", nargs="+", default=[], metavar="FIGURE=VALUE")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
