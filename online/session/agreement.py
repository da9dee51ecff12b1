"""What the ranks of a run agree on before each step: to go on, to save, or why to end.

Each rank that decided alone would leave the others waiting for it. So none acts on what it has
found (a signal, the end of its stream, a server that failed) before all know of it. Of the clocks
that of rank 0 counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import get_args

from online.clips.clip import Clip
from online.errors import OnlineError, RankLost
from online.queue.connection import ClientCounters
from online.queue.feed import FeedCounters
from online.session.outcome import Reason
from online.session.world import World
from online.stop import StopSignals

_REASONS: tuple[Reason, ...] = get_args(Reason)
_NO_REASON, _FAILED = len(_REASONS), -1


@dataclass(slots=True)
class Tally:
    """What became of clips and messages of all ranks, as of the last agreement."""

    clips: FeedCounters
    received: ClientCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a rank has found when it is ready for a step."""

    reason: Reason | None = None
    """Why to end; what comes first in `Reason` goes before what comes later."""
    failure: OnlineError | None = None
    """Why this rank cannot go on."""
    is_save_due: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What all ranks do next."""

    reason: Reason | None
    failure: OnlineError | None
    """Raised after what was learned so far is saved."""
    is_save_due: bool


class Agreement:
    """Brings together what the ranks have found."""

    def __init__(self, world: World, stop: StopSignals, tally: Tally) -> None:
        """`tally` is of this rank's own shards; it counts for all while there are no others."""
        self.world = world
        self.stop = stop
        self.tally = tally

    def on(self, found: Found, own: Tally) -> Agreed:
        """What all ranks do; each has to call it, with its own counts."""
        if self.world.size == 1:
            self.tally = own
            return Agreed(reason=found.reason, failure=found.failure, is_save_due=found.is_save_due)
        reason = _NO_REASON if found.reason is None else _REASONS.index(found.reason)
        code = reason if found.failure is None else _FAILED
        counts = (*_counts(own.clips), *_counts(own.received))
        every = self._gathered([code, found.is_save_due, *counts])
        codes = [code for code, *_ in every]
        sums = [sum(column) for column in zip(*(counts for _, _, *counts in every), strict=True)]
        split = len(fields(FeedCounters))
        self.tally = Tally(FeedCounters(*sums[:split]), ClientCounters(*sums[split:]))
        first = min(codes)
        return Agreed(
            reason=None if first in (_FAILED, _NO_REASON) else _REASONS[first],
            failure=found.failure or self._failure_elsewhere(codes),
            is_save_due=bool(every[0][1]),
        )

    def lengths(self, clips: Sequence[Clip], *, most: int) -> list[list[int]]:
        """Frames of each clip of the batch of each rank, which has at most so many clips."""
        if self.world.size == 1:
            return [[len(clip.frames) for clip in clips]]
        own = [len(clip.frames) for clip in clips]
        every = self._gathered([*own, *[0] * (most - len(own))])
        return [[length for length in each if length] for each in every]

    def announce(self) -> None:
        """Let ranks that wait know of a signal that has come here."""
        if self.stop.received is not None:
            self.world.announce_stop()

    def _gathered(self, numbers: Sequence[int]) -> list[list[int]]:
        self.announce()
        return self.world.gathered(numbers, meanwhile=self.announce)

    def _failure_elsewhere(self, codes: Sequence[int]) -> RankLost | None:
        failed = [str(rank) for rank, code in enumerate(codes) if code == _FAILED]
        if not failed:
            return None
        return RankLost(
            f"rank {self.world.rank}: rank {', '.join(failed)} cannot go on, as it says itself; "
            "the run is saved, and the same command continues it"
        )


def _counts(counters: FeedCounters | ClientCounters) -> tuple[int, ...]:
    return astuple(counters)
