"""What the benchmarks of the store have in common: footage, and how fast it is written and read."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import cycle, islice
from pathlib import Path
from random import Random

import numpy as np

from ingest.frame import Frames
from ingest.store.protocols import Store
from ingest.store.records import Counters, RecordSettings, Source
from ingest.video.open import open_video
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor
from online.clips.plan import extents_now, make_plan
from online.clips.request import ClipRequest, Order

WANT = ClipRequest(clip=ClipConfig(clip_length=32))
SIZE = 128


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Rates per second, from the median time of several rounds."""

    triplets: float = 0.0
    """That the clips own: each is three indices into the frames of its clip, and no copy."""
    frames: float = 0.0
    """Distinct frames; those that two neighbouring clips carry count once."""
    cpu_triplets: float = 0.0
    """Triplets per second of CPU time, all threads together: what others on the machine take
    shows in the other two and hardly here."""


def looped(video: Path, count: int) -> Frames:
    """Frames of a video at 128x128, from the start again until there are `count`."""
    with open_video(video, size=SIZE) as reader:
        images = [frame.image for frame in reader.frames()]
    return Frames(
        images=np.stack(list(islice(cycle(images), count))),
        pts_ns=np.arange(count, dtype=np.int64) * 33_333_333,
        gap=np.arange(count) == 0,
    )


def write(store: Store, name: str, frames: Frames, *, longest: int | None = None) -> float:
    """Seconds to write a recording, every block synced as always."""
    begun = time.perf_counter()
    with store.writer(
        name,
        source=Source(path="benchmark"),
        settings=RecordSettings(),
        height=SIZE,
        width=SIZE,
        max_chunk_length=longest,
    ) as writer:
        step, done = writer.block_length, 0
        while len(frames) - done > step:
            done += step
            writer.append(frames.part(done - step, done), Counters(decoded=done, stored=done))
        count = Counters(decoded=len(frames), stored=len(frames))
        writer.finish(frames.part(done, len(frames)), count)
    return time.perf_counter() - begun


def epoch(store: Store, name: str, order: Order) -> Callable[[], Rate]:
    """One epoch as a server reads it: its plan, then every clip; nothing cached before."""

    def run() -> Rate:
        catalog = StoreCatalog(store, holdout=0.0)
        extents = extents_now(catalog, name, follow=False)
        plan = make_plan(catalog, WANT, order=order, cursor=Cursor(extents=extents))
        config = WANT.clip
        watch = _Watch()
        for clip in plan.clips:
            catalog.fetch(clip.recording, clip.start, clip.length)
        triplets = sum(config.triplets(clip.length) for clip in plan.clips)
        rate = watch.rate(triplets=triplets, frames=extents[name].length)
        catalog.close()
        return rate

    return run


def random_clips(
    read: Callable[[int, int], object], frames: int, *, length: int, seconds: float = 0.5
) -> Callable[[], Rate]:
    """Clips that begin anywhere, read as `read(start, stop)` gives them, for a while."""

    def run() -> Rate:
        random, clips, watch = Random(0), 0, _Watch()
        while watch.seconds < seconds:
            start = random.randrange(frames - length)
            read(start, start + length)
            clips += 1
        return watch.rate(triplets=clips * (length - 2), frames=clips * length)

    return run


def medians(measured: dict[str, Callable[[], Rate]], rounds: int) -> dict[str, Rate]:
    """Every measurement once per round, in turns, after one that does not count."""
    rates: dict[str, list[Rate]] = {name: [] for name in measured}
    for _ in range(rounds + 1):
        for name, run in measured.items():
            rates[name].append(run())
    return {name: _median(found[1:]) for name, found in rates.items()}


class _Watch:
    """Time on the wall and of the processors since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._wall

    def rate(self, *, triplets: int, frames: int) -> Rate:
        seconds, cpu_seconds = self.seconds, time.process_time() - self._cpu
        return Rate(
            triplets=triplets / seconds,
            frames=frames / seconds,
            cpu_triplets=triplets / cpu_seconds,
        )


def _median(rates: Sequence[Rate]) -> Rate:
    medians = {
        field.name: statistics.median(getattr(rate, field.name) for rate in rates)
        for field in fields(Rate)
    }
    return Rate(**medians)
