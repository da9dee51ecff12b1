"""What is trained on: new clips, mixed with clips drawn again from two buffers of the past.

                     ┌────▶ fresh ──────────────── each exactly once ───┐
    insert(clip) ────┼────▶ Fifo ───────────────── the recent past ─────┼──▶ sample() -> clips
                     └────▶ Reservoir or MinRed ── all of the past ─────┘        │
                                          ▲────── update(clips, feedback) ◀── trained on

`samples_per_insert` S ties the two sides together: on average a clip is trained on S times, so
batches hold new and old clips as 1 : S - 1. Neither side runs ahead: a batch is refused until the
clips due for it are inserted, and a clip is refused until it is due. The composition of batch k
thus depends on the seed and on which clips were inserted, never on when they arrived.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import chain
from typing import Any

import numpy as np

from online.clips.clip import Clip, ClipSpec
from online.errors import ReplayError
from online.replay.buffers import LONG_TERM, Fifo
from online.replay.limiter import Limiter
from online.replay.long_term import Feedback
from setcon.checks import check_at_least, check_below, check_choice, check_within


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """How much of the past is kept, and how often it is seen again."""

    samples_per_insert: float = 8.0
    """How often a clip is trained on, on average: the setting that says how online a run is."""
    fifo_bytes: int = 64 << 20
    """Bytes of images in the short-term buffer, which drops the oldest clip; 0 for no buffer."""
    long_term: str = "reservoir"
    """What the long-term buffer keeps. `reservoir`: every past clip with the same probability.
    `minred`: the clips whose features are least alike."""
    long_term_bytes: int = 256 << 20
    """Bytes of images in the long-term buffer; 0 for no buffer."""
    fifo_share: float = 0.5
    """Share of the old clips in a batch that comes from the short-term buffer."""
    min_clips: int = 1
    """Clips to insert before the first batch; never fewer than a batch holds."""

    def __post_init__(self) -> None:
        check_at_least(1, samples_per_insert=self.samples_per_insert)
        check_below(math.inf, samples_per_insert=self.samples_per_insert)
        check_choice("long_term", self.long_term, LONG_TERM)
        check_within(0, 1, fifo_share=self.fifo_share)
        check_at_least(0, fifo_bytes=self.fifo_bytes, long_term_bytes=self.long_term_bytes)
        if self.samples_per_insert > 1 and self.fifo_bytes + self.long_term_bytes == 0:
            raise ValueError("samples_per_insert above 1 needs fifo_bytes or long_term_bytes")


class Replay:
    """Fresh clips and two buffers behind one limiter, for batches of `batch_clips`."""

    def __init__(
        self, config: ReplayConfig, *, seed: int, batch_clips: int, shard: int = 0, shards: int = 1
    ) -> None:
        """Draw by `seed`; replays of several shards of one run draw differently.

        `config` says what this shard has; that of the run has `shards` times the bytes.
        """
        self._shards = shards
        self.config = config
        self.batch_clips = batch_clips
        self._rng = np.random.default_rng([seed, 0x5E7C, shard] if shard else [seed, 0x5E7C])
        self._fresh: deque[Clip] = deque()
        self._fifo = Fifo(config.fifo_bytes)
        self._long_term = LONG_TERM[config.long_term](config.long_term_bytes, rng=self._rng)
        self._limiter = Limiter(
            config.samples_per_insert, batch_clips=batch_clips, min_clips=config.min_clips
        )

    def __len__(self) -> int:
        return len(self._by_spec())

    def _of_run(self, name: str) -> str:
        held = getattr(self.config, name)
        shared = f" for {self._shards} shards" if self._shards > 1 else ""
        return f"{held * self._shards}{shared}"

    @property
    def inserts(self) -> int:
        """Clips inserted so far."""
        return self._limiter.inserts

    @property
    def samples(self) -> int:
        """Clips drawn so far, each as often as it was."""
        return self._limiter.samples

    @property
    def batches(self) -> int:
        """Batches drawn so far."""
        return self._limiter.batches

    @property
    def nbytes(self) -> int:
        """Bytes of images held, each clip counted once."""
        return sum(clip.nbytes for clip in self.clips())

    @property
    def fifo_clips(self) -> int:
        """How many of the newest clips are held."""
        return len(self._fifo)

    @property
    def long_term_clips(self) -> int:
        """How many older clips are held."""
        return len(self._long_term)

    def clips(self) -> list[Clip]:
        """All clips held, each once."""
        return list(self._by_spec().values())

    def waiting(self) -> set[str]:
        """Recordings of the clips that were inserted and not drawn yet."""
        return {clip.spec.recording for clip in self._fresh}

    def inserts_due(self) -> int:
        """How many clips must be inserted before the next batch, and may be."""
        return self._limiter.inserts_due()

    def ready(self) -> bool:
        """Whether the next batch may be drawn."""
        return self.inserts_due() == 0

    def insert(self, clip: Clip) -> None:
        """Take in one clip that is due; it will be in the next batch that has room for it.

        Raises ReplayError: no clip is due before the next batch is drawn, or a buffer cannot hold
        even this one.
        """
        if self.ready():
            raise ReplayError(f"batch {self.batches} must be drawn before more clips are inserted")
        for name in ("fifo_bytes", "long_term_bytes"):
            if 0 < getattr(self.config, name) < clip.nbytes:
                raise ReplayError(
                    f"replay.{name} is {self._of_run(name)}, and one clip has "
                    f"{clip.nbytes} bytes; raise it, lower stream.clip_length, or set it to 0"
                )
        self._limiter.inserted()
        self._fresh.append(clip)
        if self.config.fifo_bytes:
            self._fifo.insert(clip)
        if self.config.long_term_bytes:
            self._long_term.insert(clip)

    def sample(self) -> list[Clip]:
        """Draw a batch: fresh clips first, then old ones, none twice.

        It is smaller than `batch_clips` only where fewer distinct clips are held: the same
        frames twice in a batch would be negatives of themselves.

        Raises ReplayError: clips are due first.
        """
        if due := self.inserts_due():
            raise ReplayError(f"{due} more clips must be inserted before batch {self.batches}")
        batch = self._take_fresh()
        old = self.batch_clips - len(batch)
        self._draw(batch, self._fifo, round(old * self.config.fifo_share))
        self._draw(batch, self._long_term, self.batch_clips - len(batch))
        self._draw(batch, self._fifo, self.batch_clips - len(batch))  # the other had too few
        self._limiter.drawn(len(batch))
        return list(batch.values())

    def update(self, clips: Sequence[Clip], feedback: Feedback) -> None:
        """Note what a training step found out about the batch `clips`."""
        self._long_term.update(clips, feedback)

    def state(self) -> dict[str, Any]:
        """JSON-able: which clips are held, without their pixels, and all that decides the draws.

        `arrays()` belongs to it.
        """
        return {
            "rng": self._rng.bit_generator.state,
            **self._limiter.state(),
            "fresh": _specs(self._fresh),
            "fifo": _specs(self._fifo),
            "long_term": _specs(self._long_term),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """What the long-term buffer knows of its clips; may be empty."""
        return self._long_term.arrays()

    def restore(
        self,
        state: dict[str, Any],
        arrays: Mapping[str, np.ndarray],
        fetch: Callable[[ClipSpec], Clip | None],
        progress: Callable[[float], None] = lambda share: None,
    ) -> int:
        """Take up `state` and `arrays` in a new buffer; `fetch` brings each clip's pixels.

        `progress` gets the share of them that has come. Clips for which `fetch` brings none are no
        longer held; as many new ones are due before the next batch, up to what the first batch
        took. Returns how many they are.
        """
        parts = {
            name: [ClipSpec(*fields) for fields in state[name]]
            for name in ("fresh", "fifo", "long_term")
        }
        specs = sorted({spec for part in parts.values() for spec in part})
        clips: dict[ClipSpec, Clip | None] = {}
        for spec in specs:
            progress(len(clips) / len(specs))
            clips[spec] = fetch(spec)
        progress(1.0)
        self._fresh = deque(clip for spec in parts["fresh"] if (clip := clips[spec]) is not None)
        for spec in parts["fifo"]:
            if (clip := clips[spec]) is not None:
                self._fifo.insert(clip)
        old = [clips[spec] for spec in parts["long_term"]]
        self._long_term.restore(old, inserts=state["inserts"], arrays=arrays)
        self._rng.bit_generator.state = state["rng"]
        gone = sum(clip is None for clip in clips.values())
        self._limiter.restore(state)
        self._limiter.lost(gone, left=len(self))
        return gone

    def _by_spec(self) -> dict[ClipSpec, Clip]:
        everything = chain(self._fresh, self._fifo, self._long_term)
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
        """Add `count` clips of `pool` that are not in `batch`, or all there are."""
        others = [clip for clip in pool if clip.spec not in batch]
        count = min(count, len(others))
        for index in self._rng.choice(len(others), size=count, replace=False) if count else ():
            batch[others[index].spec] = others[index]


def _specs(clips: Iterable[Clip]) -> list[list[Any]]:
    return [list(astuple(clip.spec)) for clip in clips]
