"""What a person who watches a run sees."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from online.session.pace import Pace
from online.session.state import RunState
from online.training.prequential import Prequential
from online.training.result import StepResult

_OF_THE_RUN = ("learning", "waiting for data")
"""Activities whose progress is that of the whole run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A run at one moment."""

    activity: str
    """`learning`, `waiting for data`, `probing` and the like."""
    share: float | None
    """Share of the activity that is done, 0..1; of the whole run while learning. None where it
    is not known."""
    step: int
    steps: int
    loss: float | None
    top1: float | None
    prequential_top1: float | None
    """Share of next frames found in the latest new footage, before it was learned from."""
    prequential_step: int
    """Step after which that was scored."""
    triplets_per_second: float
    samples_per_insert: float
    """How often each clip was seen so far, on average."""
    reconnects: int
    """How often a server was connected to again in this start."""
    damaged: int
    """Messages that arrived damaged in this start, and were asked for again."""
    discarded: int
    """Messages that came too late in this start: they had been requested again."""
    queued_bytes: int
    """Bytes of clips that have arrived and wait to be learned from."""
    skipped: int
    """Clips of a camera that were too old when their turn came."""
    delay_seconds: float | None
    """From the capture of the newest frame to its arrival here; None where nothing is live."""
    eta_seconds: float | None
    """Time left of the activity. While learning: by the steps, probes not counted, or by the
    minutes given, whichever is less. None until its rate is known."""
    budget_seconds: float | None = None
    """How long the run may learn, all starts together; None without a limit."""
    probe_share: float = 0.0
    """Share of the run's time in which learning was paused for probes."""
    clips_received: int = 0
    """From all servers in this start."""
    clips_inserted: int = 0
    """In all starts of the run, as `skipped`."""
    fifo_clips: int = 0
    """The newest clips that the replay holds."""
    long_term_clips: int = 0
    """The older clips that it holds."""
    beside: str = ""
    """What is done alongside learning; empty for nothing."""

    @property
    def learns(self) -> bool:
        """Whether it is learning, or would if there were data; else its losses are old."""
        return self.activity in _OF_THE_RUN


Observer = Callable[[Status], None]


class Watcher:
    """Reports the state of a run to observers."""

    def __init__(
        self,
        observers: Sequence[Observer],
        state: RunState,
        prequential: Prequential,
        *,
        steps: int,
        budget_seconds: float,
    ) -> None:
        self._observers = observers
        self._state = state
        self._clock = state.clock
        self._prequential = prequential
        self._steps = steps
        self._budget_seconds = budget_seconds
        self._last: StepResult | None = None
        self._pace = Pace()
        self.beside = ""
        """What is done alongside learning, to be reported with the rest."""

    def stepped(self, result: StepResult) -> None:
        """Note that the run has taken a step."""
        self._last = result
        self.tell("learning")

    def tell(self, activity: str, share: float | None = None) -> None:
        """Say what the run does, and what `share` of that is done."""
        if activity in _OF_THE_RUN:
            share, left = self._learned(), self._learning_seconds_left()
        else:
            left = self._seconds_left(share)
        status = self._status(activity, share, left)
        for observe in self._observers:
            observe(status)

    def _status(self, activity: str, share: float | None, eta_seconds: float | None) -> Status:
        received, spent = self._state.received, self._clock.spent
        return Status(
            activity=activity,
            share=share,
            step=self._state.step,
            steps=self._steps,
            loss=self._last.loss if self._last else None,
            top1=self._last.top1 if self._last else None,
            prequential_top1=self._prequential.recent_top1,
            prequential_step=self._prequential.latest_step,
            triplets_per_second=self._clock.triplets_per_second,
            samples_per_insert=self._state.samples_per_insert,
            reconnects=received.reconnects,
            damaged=received.damaged,
            discarded=received.stale,
            queued_bytes=received.waiting_bytes,
            skipped=self._state.counters.skipped,
            delay_seconds=self._clock.delay_seconds,
            eta_seconds=eta_seconds,
            budget_seconds=self._budget_seconds if math.isfinite(self._budget_seconds) else None,
            probe_share=spent.probe_share,
            clips_received=received.clips,
            clips_inserted=self._state.counters.inserted,
            fifo_clips=sum(shard.replay.fifo_clips for shard in self._state.shards),
            long_term_clips=sum(shard.replay.long_term_clips for shard in self._state.shards),
            beside=self.beside,
        )

    def _learned(self) -> float:
        """Share of the run that is done, by its steps or its minutes."""
        by_steps = self._state.step / self._steps
        return min(1.0, max(by_steps, self._clock.seconds / self._budget_seconds))

    def _seconds_left(self, share: float | None) -> float | None:
        """Of what is done while nothing is learned."""
        if share is None:
            self._pace.forget()
            return None
        return self._pace.seconds_left(share, at=time.monotonic())

    def _learning_seconds_left(self) -> float | None:
        self._pace.forget()
        steps_left = self._steps - self._state.step
        known = self._clock.seconds_per_step
        per_step = math.inf if known is None else known
        left = min(per_step * steps_left, self._budget_seconds - self._clock.seconds)
        return max(0.0, left) if math.isfinite(left) else None
