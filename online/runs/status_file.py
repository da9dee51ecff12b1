"""`status.json`: the current state of a run, for other programs to read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from ingest.disk.durable import PARTIAL
from online.runs.lock import is_at_work
from online.scores.evaluation import NO_JSON

log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
"""Least time between two writes of the file during one activity."""


@runtime_checkable
class Reported(Protocol):
    """What is written: the fields of a dataclass."""

    @property
    def activity(self) -> str:
        """What the run does."""
        ...


class StatusFile:
    """Keeps the latest status in a file that is there while the run goes on.

    A file that cannot be written is reported once, and learning goes on without it.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        # one name for all writes, so that what a killed run left is replaced by the next one
        self._partial = path.with_name(f".{path.name}{PARTIAL}")
        self._now = now
        self._due = -1.0
        self._activity = ""
        self._has_failed = False

    def __call__(self, status: Reported) -> None:
        """Replace the file, unless that was done just now and the activity is the same."""
        now = self._now()
        if now < self._due and status.activity == self._activity:
            return
        self._due, self._activity = now + EVERY_SECONDS, status.activity
        try:
            self._partial.write_bytes(msgspec.json.encode(status))
            self._partial.replace(self.path)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                log.warning("%s: cannot be written (%s); the run goes on", self.path, error)

    def close(self) -> None:
        """Delete the file: the run has ended."""
        self._partial.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def read_status(path: Path) -> dict[str, Any] | None:
    """What `path` holds, by the names of `Status`; None where no trainer is at work in its run.

    A killed run leaves the file, but not its lock.
    """
    if not is_at_work(path.parent):
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, *NO_JSON):
        return None
