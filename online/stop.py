"""SIGINT and SIGTERM as a request: the first is obeyed at a safe point, the second at once.

A second one that comes right after the first is the same request: see `ingest.disk.signals`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from ingest.disk.signals import is_repeat, obeyed


class StopRequested(BaseException):
    """A signal came in the middle of what can be given up; like KeyboardInterrupt, no error."""


class StopSignals:
    """While entered, remembers the first SIGINT or SIGTERM; main thread only."""

    def __init__(self, elsewhere: Callable[[], bool] = lambda: False) -> None:
        """`elsewhere` says whether another process that works with this one was asked to stop."""
        self._elsewhere = elsewhere
        self.received: signal.Signals | None = None
        self._at_once = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise StopRequested in the middle of what is inside, wherever a signal finds it.

        For what a kill may interrupt too: waiting, computing, files that are replaced whole.
        """
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def check(self) -> None:
        """Raise StopRequested if a signal has come, here or elsewhere."""
        if self.received is not None or self._elsewhere():
            raise StopRequested

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if is_repeat():
                return
            os._exit(128 + number)  # the user insists: no clean-up, the last checkpoint remains
        obeyed()
        self.received = signal.Signals(number)
        if self._at_once:
            raise StopRequested
