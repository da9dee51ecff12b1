"""Time left of an activity that says which share of it is done."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 30.0
"""A rate is that of the latest work: not all of it goes equally fast."""
LEAST_SECONDS = 3.0
"""A rate from less is an accident."""
LEAP = 0.15
"""Share that no work does at once: it was kept from an earlier start, and says nothing of the
rate."""


class Pace:
    """Estimates the time left by the latest rate."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque()
        """Times and shares."""

    def forget(self) -> None:
        """Another activity begins."""
        self._marks.clear()

    def seconds_left(self, share: float, *, at: float) -> float | None:
        """Time left when `share` is done `at` some second; None while no rate is known."""
        if self._marks and not 0 <= share - self._marks[-1][1] < LEAP:
            self._marks.clear()
        self._marks.append((at, share))
        while len(self._marks) > 2 and self._marks[1][0] <= at - WINDOW_SECONDS:
            self._marks.popleft()
        began, begun = self._marks[0]
        taken, done = at - began, share - begun
        if taken < LEAST_SECONDS or done <= 0:
            return None
        return (1 - share) * taken / done
