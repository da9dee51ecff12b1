"""Time spent on a run over all its starts, rates over the last steps, and the delay of a camera."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Cause = Literal["probe", "checkpoint"]
"""What learning is paused for."""

WINDOW_STEPS = 50
"""Steps over which rates are taken."""
FIRST_STEPS = 10
"""Steps of a start, in which memory is found and libraries are loaded, that its time per step
leaves out."""


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    waited: float
    triplets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """How a run spent its time, over all its starts."""

    seconds: float
    probe_share: float
    """Share of it in which learning was paused for probes and reports."""
    checkpoint_share: float
    """Share of it in which learning was paused for checkpoints."""


class RunClock:
    """Counts a run's seconds, and of its latest steps the triplets and the waiting."""

    def __init__(self) -> None:
        self.delay_seconds: float | None = None
        """From the capture of the newest frame that was taken in; None where none is live."""
        self._marks: deque[_Mark] = deque(maxlen=WINDOW_STEPS + 1)
        self.start(0.0)

    def start(
        self, seconds_before: float, paused_before: Mapping[str, float] | None = None
    ) -> None:
        """Begin to count, on top of what earlier starts of the run took and were paused for."""
        self.paused_seconds: dict[str, float] = {
            "probe": 0.0,
            "checkpoint": 0.0,
            **(paused_before or {}),
        }
        self._before, self._started = seconds_before, time.monotonic()
        self._waited, self._triplets = 0.0, 0
        self._steps, self._learned_seconds = 0, 0.0
        self._marks.clear()
        self._mark()

    @property
    def seconds(self) -> float:
        """Seconds of the run so far."""
        return self._before + time.monotonic() - self._started

    @property
    def spent(self) -> Spent:
        """What these seconds went into."""
        seconds = max(self.seconds, 1e-9)
        return Spent(
            seconds=self.seconds,
            probe_share=self.paused_seconds["probe"] / seconds,
            checkpoint_share=self.paused_seconds["checkpoint"] / seconds,
        )

    @contextmanager
    def paused(self, cause: Cause) -> Iterator[None]:
        """Count the time inside as taken from learning."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.paused_seconds[cause] += time.monotonic() - began

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - began

    def took_in(self, captured_ns: int | None) -> None:
        """Note when the last frame of a new clip was captured, on the wall clock."""
        self.delay_seconds = None if captured_ns is None else time.time() - captured_ns / 1e9

    def step(self, triplets: int) -> None:
        """Count one optimizer step."""
        self._triplets += triplets
        self._steps += 1
        before = self._marks[-1].at
        self._mark()
        if self._steps > FIRST_STEPS:
            self._learned_seconds += self._marks[-1].at - before

    def pause(self) -> None:
        """Forget the latest steps: what comes now (a probe) says nothing about their rate."""
        self._marks.clear()
        self._mark()

    @property
    def triplets_per_second(self) -> float:
        """Triplets learned from per second of wall time."""
        first, last = self._marks[0], self._marks[-1]
        return (last.triplets - first.triplets) / max(1e-9, last.at - first.at)

    @property
    def seconds_per_step(self) -> float | None:
        """Mean over the learning of this start, its first steps and pauses left out; None in
        these first steps."""
        counted = self._steps - FIRST_STEPS
        return self._learned_seconds / counted if counted > 0 else None

    @property
    def wait_share(self) -> float:
        """Share of wall time spent waiting for data."""
        first, last = self._marks[0], self._marks[-1]
        return (last.waited - first.waited) / max(1e-9, last.at - first.at)

    def _mark(self) -> None:
        self._marks.append(_Mark(time.monotonic(), self._waited, self._triplets))
