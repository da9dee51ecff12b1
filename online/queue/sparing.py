"""Warnings about what peers do, of which there may be any number a second."""

from __future__ import annotations

import logging
import time

from ingest.printable import harmless

BURST, WINDOW_SECONDS = 5, 1.0
"""At most this many lines in each window, and how many were left out."""


class SparingLog:
    """Logs the first few warnings of each second."""

    def __init__(self, log: logging.Logger, *, burst: int = BURST) -> None:
        self._log = log
        self._burst = burst
        self._window_began = -WINDOW_SECONDS
        self._logged = self._left_out = 0

    def warn(self, message: str) -> None:
        """Log one line, or count it."""
        now = time.monotonic()
        if now - self._window_began >= WINDOW_SECONDS:
            self._window_began, self._logged = now, 0
            if self._left_out:
                self._log.warning("%d more warnings like these were left out", self._left_out)
                self._left_out = 0
        if self._logged < self._burst:
            self._logged += 1
            self._log.warning("%s", harmless(message))
        else:
            self._left_out += 1
