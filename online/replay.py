"""What is trained on: new clips, mixed with clips drawn again from two buffers of the past.

                     ┌──────────▶ fresh ─── each exactly once ───┐
    insert(clip) ────┼──────────▶ Fifo ──── the recent past ─────┼──▶ sample() -> list of clips
                     └──────────▶ Reservoir  all of the past ────┘

``samples_per_insert`` S ties the two sides together: on average a clip is trained on S times, so
batches hold new and old clips as 1 : S - 1. Neither side runs ahead: a batch is refused until the
clips due for it are inserted, and a clip is refused until it is due. The composition of batch k
thus depends on the seed and on which clips were inserted, never on when they arrived.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from itertools import chain
from typing import Any

import numpy as np

from online.clip import Clip, ClipSpec
from online.errors import ReplayError


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """How much of the past is kept, and how often it is seen again."""

    samples_per_insert: float = 8.0
    """How often a clip is trained on, on average: the setting that says how online a run is."""
    fifo_clips: int = 64
    """Clips in the short-term buffer, which drops the oldest."""
    reservoir_clips: int = 256
    """Clips in the long-term buffer, which keeps every clip of the past equally often."""
    fifo_share: float = 0.5
    """Share of the old clips in a batch that comes from the short-term buffer."""
    min_clips: int = 1
    """Clips that are inserted before the first batch; at least a batch of them is."""
    fifo_bytes: int = 0
    """Bound on the images in the short-term buffer; 0 leaves the number of clips as the bound."""
    reservoir_bytes: int = 0
    """Bound on the images in the long-term buffer; 0 leaves the number of clips as the bound."""

    def __post_init__(self) -> None:
        if not 1 <= self.samples_per_insert < math.inf:
            raise ValueError(
                f"samples_per_insert is {self.samples_per_insert}, it must be at least 1"
            )
        if not 0 <= self.fifo_share <= 1:
            raise ValueError(f"fifo_share is {self.fifo_share}, it must lie in 0..1")
        for name in ("fifo_clips", "reservoir_clips", "fifo_bytes", "reservoir_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, it cannot be below 0")
        if self.samples_per_insert > 1 and self.fifo_clips + self.reservoir_clips == 0:
            raise ValueError("samples_per_insert above 1 needs fifo_clips or reservoir_clips")


class Fifo:
    """The newest clips, as many as ``max_clips`` and ``max_bytes`` allow; a newer copy replaces."""

    def __init__(self, max_clips: int, max_bytes: float = math.inf) -> None:
        self._max_clips, self._max_bytes = max_clips, max_bytes
        self._clips: dict[ClipSpec, Clip] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips.values())

    def insert(self, clip: Clip) -> None:
        """Add ``clip`` as the newest and drop the oldest that no longer fit."""
        self._drop(clip.spec)
        self._clips[clip.spec] = clip
        self.nbytes += clip.nbytes
        while len(self) > self._max_clips or self.nbytes > self._max_bytes:
            self._drop(next(iter(self._clips)))

    def _drop(self, spec: ClipSpec) -> None:
        if spec in self._clips:
            self.nbytes -= self._clips.pop(spec).nbytes


class Reservoir:
    """A uniform sample of all clips ever inserted (Vitter's algorithm R).

    A clip that comes by again while it is held, as in a second epoch, is not held twice.
    """

    def __init__(
        self, max_clips: int, max_bytes: float = math.inf, *, rng: np.random.Generator
    ) -> None:
        self._max_clips, self._max_bytes = max_clips, max_bytes
        self._rng = rng
        self._clips: list[Clip] = []
        self._held: set[ClipSpec] = set()
        self.seen = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._clips)

    def insert(self, clip: Clip) -> None:
        """Keep ``clip`` with probability capacity / clips seen, in place of another."""
        self.seen += 1
        if clip.spec in self._held:
            return
        if len(self) < self._max_clips and self.nbytes + clip.nbytes <= self._max_bytes:
            self._add(clip)
        elif (victim := int(self._rng.integers(self.seen))) < len(self):
            self._remove(victim)
            self._add(clip)
            while self.nbytes > self._max_bytes:  # it was larger than the clip it replaced
                self._remove(int(self._rng.integers(len(self))))

    def restore(self, clips: list[Clip], seen: int) -> None:
        """Hold exactly ``clips``, in this order, out of ``seen``."""
        self._clips, self._held, self.nbytes, self.seen = [], set(), 0, seen
        for clip in clips:
            self._add(clip)

    def _add(self, clip: Clip) -> None:
        self._clips.append(clip)
        self._held.add(clip.spec)
        self.nbytes += clip.nbytes

    def _remove(self, index: int) -> None:
        self._clips[index], self._clips[-1] = self._clips[-1], self._clips[index]
        gone = self._clips.pop()
        self._held.remove(gone.spec)
        self.nbytes -= gone.nbytes


class Replay:
    """Fresh clips, a Fifo and a Reservoir behind one limiter, for batches of ``batch_clips``."""

    def __init__(self, config: ReplayConfig, *, seed: int, batch_clips: int) -> None:
        self.config = config
        self.batch_clips = batch_clips
        self._rng = np.random.default_rng([seed, 0x5E7C])
        self._fresh: deque[Clip] = deque()
        self._fifo = Fifo(config.fifo_clips, config.fifo_bytes or math.inf)
        self._reservoir = Reservoir(
            config.reservoir_clips, config.reservoir_bytes or math.inf, rng=self._rng
        )
        self.inserts = 0
        self.samples = 0
        self.batches = 0

    def __len__(self) -> int:
        return len(self._held())

    @property
    def nbytes(self) -> int:
        """Bytes of images held, each clip counted once."""
        return sum(clip.nbytes for clip in self._held().values())

    def held(self) -> list[Clip]:
        """All clips held, each once."""
        return list(self._held().values())

    def inserts_due(self) -> int:
        """How many clips must be inserted before the next batch, and may be."""
        warm = max(self.config.min_clips, self.batch_clips)
        earned = math.ceil((self.samples + self.batch_clips) / self.config.samples_per_insert)
        return max(0, max(warm, earned) - self.inserts)

    def ready(self) -> bool:
        """Whether the next batch may be drawn."""
        return self.inserts_due() == 0

    def insert(self, clip: Clip) -> None:
        """Take in one clip that is due; it will be in the next batch that has room for it.

        Raises:
            ReplayError: no clip is due before the next batch is drawn.
        """
        if self.ready():
            raise ReplayError(f"batch {self.batches} must be drawn before more clips are inserted")
        self.inserts += 1
        self._fresh.append(clip)
        if self.config.fifo_clips:
            self._fifo.insert(clip)
        if self.config.reservoir_clips:
            self._reservoir.insert(clip)

    def sample(self) -> list[Clip]:
        """Draw a batch: fresh clips first, then old ones, none twice.

        It is smaller than ``batch_clips`` only where fewer distinct clips are held: the same
        frames twice in a batch would be negatives of themselves.

        Raises:
            ReplayError: clips are due first.
        """
        if due := self.inserts_due():
            raise ReplayError(f"{due} more clips must be inserted before batch {self.batches}")
        batch = self._take_fresh()
        old = self.batch_clips - len(batch)
        self._draw(batch, self._fifo, round(old * self.config.fifo_share))
        self._draw(batch, self._reservoir, self.batch_clips - len(batch))
        self._draw(batch, self._fifo, self.batch_clips - len(batch))  # the reservoir had too few
        self.samples += len(batch)
        self.batches += 1
        return list(batch.values())

    def state(self) -> dict[str, Any]:
        """JSON-able: which clips are held, without their pixels, and all that decides the draws."""
        return {
            "rng": self._rng.bit_generator.state,
            "inserts": self.inserts,
            "samples": self.samples,
            "batches": self.batches,
            "seen": self._reservoir.seen,
            "fresh": _specs(self._fresh),
            "fifo": _specs(self._fifo),
            "reservoir": _specs(self._reservoir),
        }

    def restore(self, state: dict[str, Any], fetch: Callable[[ClipSpec], Clip]) -> None:
        """Take up ``state`` in a new buffer; ``fetch`` brings the pixels, each clip's once."""
        parts = {
            name: [ClipSpec(*fields) for fields in state[name]]
            for name in ("fresh", "fifo", "reservoir")
        }
        clips = {spec: fetch(spec) for spec in sorted({s for part in parts.values() for s in part})}
        self._fresh = deque(clips[spec] for spec in parts["fresh"])
        for spec in parts["fifo"]:
            self._fifo.insert(clips[spec])
        self._reservoir.restore([clips[spec] for spec in parts["reservoir"]], state["seen"])
        self.inserts, self.samples = state["inserts"], state["samples"]
        self.batches = state["batches"]
        self._rng.bit_generator.state = state["rng"]

    def _held(self) -> dict[ClipSpec, Clip]:
        everything = chain(self._fresh, self._fifo, self._reservoir)
        return {clip.spec: clip for clip in everything}

    def _take_fresh(self) -> dict[ClipSpec, Clip]:
        """Up to a batch of the longest-waiting fresh clips; a second copy waits for its turn."""
        batch: dict[ClipSpec, Clip] = {}
        waiting: deque[Clip] = deque()
        for clip in self._fresh:
            if len(batch) < self.batch_clips and clip.spec not in batch:
                batch[clip.spec] = clip
            else:
                waiting.append(clip)
        self._fresh = waiting
        return batch

    def _draw(self, batch: dict[ClipSpec, Clip], pool: Iterable[Clip], count: int) -> None:
        """Add ``count`` clips of ``pool`` that are not in ``batch``, or all there are."""
        others = [clip for clip in pool if clip.spec not in batch]
        count = min(count, len(others))
        for index in self._rng.choice(len(others), size=count, replace=False) if count else ():
            batch[others[index].spec] = others[index]


def _specs(clips: Iterable[Clip]) -> list[list[Any]]:
    return [list(astuple(clip.spec)) for clip in clips]
