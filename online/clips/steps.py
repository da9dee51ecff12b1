"""Work in small steps of a few milliseconds each, so that a server can do other work in between."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

STEP_CLIPS = 1 << 12
STEP_NAMES = 1 << 6
"""How much is done in a step."""
STEP_SECONDS = 0.005
"""For how long a step waits for a thread."""

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


def until_done(coming: Future[Any]) -> Steps[None]:
    """Wait for a thread; others have their turns in between."""
    while not coming.done():
        wait([coming], STEP_SECONDS)
        yield 0
