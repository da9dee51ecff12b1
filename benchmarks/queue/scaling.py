"""What 1,000 and 100,000 hours cost, and what saturates: a simulation from measured figures.

    python benchmarks/queue/scaling.py [--set FIGURE=VALUE ...] [--check] [--json FILE]

    bucket ──GETs──▶ cache ─▶ decompression ─▶ serving thread ─▶ queue ─▶ trainer
         latency, links       cores            one a rank        credit   GPU

Each event of one rank is simulated: requests for blocks of 8 MiB, as soon as a clip that needs one
is within the clips that are read ahead; before them those that open a recording, where it is not
among the ones that are open; their latency, drawn from a log-normal distribution; the link; the
cores that decompress; the thread that serves, in the order of the plan; the credit; and the
trainer. The plan is a shuffled epoch: 16 runs of 8 neighbouring clips, which share blocks, are
mixed. The other ranks are alike, and take their parts of what all of them share. What is busy for
most of the time limits the run; where nothing is, latency does.

FIGURE is a field of `Measured`; docs/scaling.md says where each comes from. `--check` reads epochs
from a server of this machine (`benchmarks/ingest/object_store.py`) and simulates them. What this
machine's cores need for a clip is taken from an epoch without latency; the others are foretold.
"""

import argparse
import heapq
import json
import math
import random
import re
import subprocess
import sys
import tempfile
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from ingest.store.blocks import BLOCK_BYTES
from ingest.store.directory import ASKED_AT_ONCE
from online.clips.readers import AHEAD, OPEN_REMOTE_READERS
from online.queue.stream import BYTES_AHEAD, CLIPS_AHEAD

CREDIT_BYTES = 64 << 20
NEIGHBOURS, MIXED_RUNS = 8, 16
CLIPS = 40 * NEIGHBOURS * MIXED_RUNS
"""Simulated; the first tenth is not counted."""
OPENING = (3, 3)
"""GETs of a recording that is not open: the metadata of frames, times and gaps; then the index of a
shard, and a piece of the times and of the gaps. Its record is known from planning."""
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
    planning_seconds: float = 1.6e-4
    """For one recording, once per start, its record being here."""
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
    measured: Measured,
    *,
    samples_per_insert: float,
    ranks: int,
    recordings: int,
    blocks_of_run: float,
    clips: int = CLIPS,
    warm: int = CLIPS // 10,
    seed: int = 0,
) -> Flow:
    """Clips through the whole path of one rank of several, event by event.

    `blocks_of_run` come, on average, with neighbouring clips; the first `warm` ones do not count.
    """
    rng = random.Random(seed)
    bucket = Bucket(measured, ranks, blocks_of_run, rng)
    opened = OpenRecordings(recordings, rng)
    decompress = measured.clip_frames / measured.decompress_frames
    serve = measured.clip_frames / measured.serving_frames
    learn = measured.clip_frames * samples_per_insert / measured.step_frames
    cores = [0.0] * measured.cores
    may_wait = max(1, int(CREDIT_BYTES / measured.clip_bytes))
    ahead = max(1, min(CLIPS_AHEAD, int(BYTES_AHEAD / measured.clip_bytes)))
    brought = [0.0] * AHEAD
    served, served_at = 0.0, deque([0.0] * ahead, maxlen=ahead)
    learned, learned_at = 0.0, deque([0.0] * may_wait, maxlen=may_wait)
    warm_at, runs_at = 0.0, {}
    for clip, run in enumerate(shuffled_runs(clips, rng)):
        if clip == warm:
            warm_at = learned
            bucket.link_seconds = bucket.gate_seconds = 0.0
        asked = max(served_at[0], heapq.heappop(brought))
        if run not in runs_at:
            runs_at[run] = bucket.arrival(asked, is_open=opened.use())
        heapq.heappush(brought, max(runs_at[run], asked))
        ready = max(runs_at[run], asked, heapq.heappop(cores)) + decompress
        heapq.heappush(cores, ready)
        served = max(served, ready, learned_at[0]) + serve
        served_at.append(served)
        learned = max(learned, served) + learn
        learned_at.append(learned)
    seconds, counted = learned - warm_at, clips - warm
    busy = {
        "GETs of a prefix": bucket.gate_seconds / seconds,
        "link": bucket.link_seconds / seconds,
        "decompression": counted * decompress / measured.cores / seconds,
        "serving thread": counted * serve / seconds,
        "GPU": counted * learn / seconds,
    }
    return Flow(counted / seconds, busy)


def shuffled_runs(clips: int, rng: random.Random) -> list[int]:
    """To which run of neighbours each clip of a plan belongs."""
    order = []
    for first in range(0, clips, NEIGHBOURS * MIXED_RUNS):
        pool = range(first, min(first + NEIGHBOURS * MIXED_RUNS, clips))
        order += rng.sample([clip // NEIGHBOURS for clip in pool], len(pool))
    return order


class OpenRecordings:
    """Those that were used last: each run of clips is of any of all recordings."""

    def __init__(self, recordings: int, rng: random.Random) -> None:
        self._recordings, self._rng = recordings, rng
        self._open: OrderedDict[int, None] = OrderedDict()

    def use(self) -> bool:
        """Use one; whether it was open."""
        recording = self._rng.randrange(self._recordings)
        was_open = recording in self._open
        self._open[recording] = None
        self._open.move_to_end(recording)
        if len(self._open) > OPEN_REMOTE_READERS:
            self._open.popitem(last=False)
        return was_open


class Bucket:
    """When what is asked for arrives: the gate and the link are taken in turn, in the order in
    which runs ask; latency comes on top."""

    def __init__(self, measured: Measured, ranks: int, blocks: float, rng: random.Random) -> None:
        """A run has so many blocks, on average."""
        self._measured, self._blocks, self._rng = measured, blocks, rng
        self._gate_each = ranks / measured.bucket_gets
        self._link_each = BLOCK_BYTES / measured.link_bytes
        self._gate_at = self._link_at = 0.0
        self._owed = 0.0
        self.gate_seconds = self.link_seconds = 0.0

    def arrival(self, asked: float, *, is_open: bool) -> float:
        """When the last byte of a run is here, of a recording that is open or not."""
        opening = () if is_open else OPENING
        self._owed += self._blocks
        blocks = int(self._owed)
        self._owed -= blocks
        gate, link = (sum(opening) + blocks) * self._gate_each, blocks * self._link_each
        self._gate_at = max(self._gate_at, asked) + gate
        self._link_at = max(self._link_at, asked) + link
        self.gate_seconds += gate
        self.link_seconds += link
        waits = sum(self._slowest(gets) for gets in opening)
        if blocks:
            waits += self._slowest(blocks) + BLOCK_BYTES / self._measured.request_bytes
        return max(self._gate_at, self._link_at) + waits

    def _slowest(self, gets: int) -> float:
        """Seconds until all of some answers have begun that were asked for together."""
        spread = self._measured.block_spread
        return self._measured.block_seconds * math.exp(
            max(spread * self._rng.gauss(0, 1) for _ in range(gets))
        )


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
        "planning_seconds": recordings
        * max(measured.planning_seconds, measured.block_seconds / ASKED_AT_ONCE),
    }


def learned(
    hours: float, measured: Measured, *, samples_per_insert: float, ranks: int
) -> dict[str, Any]:
    """What one pass over the footage takes."""
    frames = 3600 * hours * measured.fps
    blocks = measured.blocks_of_run(frames * measured.frame_bytes)
    recordings = max(1, round(hours / measured.recording_hours))
    flow = simulate(
        measured,
        samples_per_insert=samples_per_insert,
        ranks=ranks,
        recordings=recordings,
        blocks_of_run=blocks,
    )
    clips = frames / measured.clip_frames
    new_frames = flow.clips_per_second * measured.clip_frames
    runs = flow.clips_per_second / NEIGHBOURS
    opened = sum(OPENING) * max(0.0, 1 - OPEN_REMOTE_READERS / recordings)
    return {
        "hours": hours,
        "samples_per_insert": samples_per_insert,
        "ranks": ranks,
        "pass_hours": clips / flow.clips_per_second / ranks / 3600,
        "new_frames_per_second": new_frames * ranks,
        "megabytes_per_second": runs * blocks * ranks * BLOCK_BYTES / 1e6,
        "gets_per_second": runs * (blocks + opened) * ranks,
        "cores_to_decompress": ranks * measured.cores * flow.busy["decompression"],
        "limit": flow.limit,
        "busy": flow.busy,
    }


def check(measured: Measured) -> None:
    """The same epochs simulated, and read from a server of this machine."""
    frames, side = 10_240, measured.side
    print("recordings | to the first byte | clips/s read | simulated")
    for recordings in (1, 40):
        told = _read_here(frames, recordings, side)
        rates, clips = _rates(told)
        here = replace(
            measured,
            stored_share=told["stored_share"],
            block_spread=0.0,
            request_bytes=1e12,  # what they cost here is part of what the cores need for a clip
            link_bytes=1e12,
            decompress_frames=1e12,
            serving_frames=rates[0.0] * measured.clip_frames,
        )
        per_object = min(frames / recordings, measured.object_frames) * here.frame_bytes
        objects = max(recordings, frames / measured.object_frames)
        for delay in CHECKED:
            flow = simulate(
                replace(here, block_seconds=delay),
                samples_per_insert=0.0,
                ranks=1,
                recordings=recordings,
                blocks_of_run=0.8 * objects * math.ceil(per_object / BLOCK_BYTES) * 8 / clips,
                clips=clips,
                warm=1,
            )
            print(
                f"{recordings} | {delay * 1e3:.0f} ms | {rates[delay]:.0f} | "
                f"{flow.clips_per_second:.0f}",
                flush=True,
            )


CHECKED = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Seconds to the first byte."""


def _read_here(frames: int, recordings: int, side: int) -> dict[str, Any]:
    script = Path(__file__).parents[1] / "ingest" / "object_store.py"
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        words = [sys.executable, str(script), "--json", file.name, "--only-ahead"]
        words += ["--frames", str(frames), "--recordings", str(recordings), "--side", str(side)]
        subprocess.run(
            [*words, "--delays", *map(str, CHECKED)], stdout=subprocess.DEVNULL, check=True
        )
        return json.loads(Path(file.name).read_text())


def _rates(told: dict[str, Any]) -> tuple[dict[float, float], int]:
    """Medians of clips a second after the first clip, by delay; and how many clips."""
    found: dict[float, list[float]] = {}
    for epoch in told["epochs"]:
        rate = (epoch["clips"] - 1) / (epoch["seconds"] - epoch["first_seconds"])
        found.setdefault(epoch["delay"], []).append(rate)
    return {key: median(rates) for key, rates in found.items()}, told["epochs"][0]["clips"]


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
