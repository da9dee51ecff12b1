"""SIGINT and SIGTERM as a request: the first is obeyed at a safe point, the second at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While entered, remembers the first SIGINT or SIGTERM; main thread only."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
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

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)  # somebody means it: no clean-up, the last checkpoint stands
        self.received = signal.Signals(number)
