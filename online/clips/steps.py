"""Work in small steps of a few milliseconds each, so that a server can do other work in between."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, TypeVar

STEP_CLIPS = 1 << 12
STEP_NAMES = 1 << 6
"""How much is done in a step."""
WAITING = -1
"""What a step gives that can do nothing until a thread has gone on."""
WAIT_SECONDS = 0.005
"""How long to do something else then."""

Result = TypeVar("Result")
Steps = Generator[int, None, Result]
"""Every step gives how many bytes the plan takes, as far as it is known."""


def done(steps: Steps[Result]) -> Result:
    """What all the steps of some work come to."""
    while True:
        try:
            if next(steps) == WAITING:
                time.sleep(WAIT_SECONDS)
        except StopIteration as end:
            return end.value


def until_done(coming: Future[Any]) -> Steps[None]:
    """Wait for a thread."""
    while not coming.done():
        yield WAITING
