"""Work in small steps of a few milliseconds each, so that a server can do other work in between."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

STEP_CLIPS = 1 << 12
STEP_NAMES = 1 << 6
"""How much is done in a step."""

Result = TypeVar("Result")
Steps = Generator[int, None, Result]
"""Every step gives how many bytes the plan takes, as far as it is known."""


def done(steps: Steps[Result]) -> Result:
    """What all the steps of some work come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
