"""Whether a run is at work, and what it does, by its files alone.

The lock says so on this machine, where a run whose lock is gone has ended or was killed. Over a
mount locks may not be seen, or not work, which is logged: there a run is at work while its files
change.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from online.errors import RunError
from online.runs.lock import is_at_work
from online.runs.names import CONFIG_FILE
from online.scores.evaluation import NO_JSON

log = logging.getLogger(__name__)

SILENT_SECONDS = 30.0
"""After so long without a change, a run whose lock is not held is taken to have ended."""

Activity = Literal["absent", "at work", "ended"]


@dataclass(frozen=True, slots=True)
class Live:
    """A run at one moment."""

    activity: Activity
    status: dict[str, Any]
    """The fields of `Status`; empty unless it is at work and has written them."""


class LiveFile:
    """Follows `status.json` of a run, which may not exist yet."""

    def __init__(self, run: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._now = now
        self._seen: bytes | None = None
        self._changed_at: float | None = None
        self._was_locked = False
        self._sees_locks = True

    def poll(self) -> Live:
        """What the run does now."""
        if not (self._run / CONFIG_FILE).exists():
            return Live("absent", {})
        written = _read(self._run / "status.json")
        is_locked = self._is_locked()
        if is_locked or self._was_locked:
            self._changed_at = None  # what was written until now was written under the lock
        elif self._seen is not None and written not in (None, self._seen):
            self._changed_at = self._now()
        self._seen, self._was_locked = written, is_locked
        if not (is_locked or self._has_just_changed()):
            return Live("ended", {})
        return Live("at work", _fields(written))

    def _is_locked(self) -> bool:
        try:
            return is_at_work(self._run)
        except RunError as error:
            if self._sees_locks:
                log.warning("%s; a run is taken to be at work while its files change", error)
            self._sees_locks = False
            return False

    def _has_just_changed(self) -> bool:
        if self._seen is None or self._changed_at is None:
            return False
        return self._now() - self._changed_at < SILENT_SECONDS


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _fields(written: bytes | None) -> dict[str, Any]:
    try:
        return msgspec.json.decode(written or b"{}", type=dict[str, Any])
    except NO_JSON:
        return {}
