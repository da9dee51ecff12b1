"""Time left of an activity that says which share of it is done."""

from __future__ import annotations

LEAST_SECONDS = 3.0
"""A rate from less is an accident."""
LEAP = 0.15
"""Share that no work does at once: it was kept from an earlier start, and says nothing of the
rate."""


class Pace:
    """Estimates the time left by the rate so far."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        """Time and share from which the rate is taken."""
        self._share = 0.0

    def forget(self) -> None:
        """Another activity begins."""
        self._first = None

    def seconds_left(self, share: float, *, at: float) -> float | None:
        """Time left when `share` is done `at` some second; None while no rate is known."""
        if self._first is None or not 0 <= share - self._share < LEAP:
            self._first = (at, share)
        self._share = share
        began, begun = self._first
        taken, done = at - began, share - begun
        if taken < LEAST_SECONDS or done <= 0:
            return None
        return (1 - share) * taken / done
