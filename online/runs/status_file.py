"""`status.json`: the current state of a run, for other programs to read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ingest.disk.durable import write_whole
from online.scores.evaluation import NO_JSON

EVERY_SECONDS = 1.0
"""Least time between two writes of the file."""


class StatusFile:
    """Keeps the latest status in a file that is there while the run goes on."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._now = now
        self._due = -1.0

    def __call__(self, status: object) -> None:
        """Replace the file, unless that was done just now."""
        if (now := self._now()) >= self._due:
            self._due = now + EVERY_SECONDS
            write_whole(self.path, msgspec.json.encode(status), durable=False)

    def close(self) -> None:
        """Delete the file: the run has ended."""
        self.path.unlink(missing_ok=True)


def read_status(path: Path, *, max_age_seconds: float = 60.0) -> dict[str, Any] | None:
    """What `path` holds, by the names of `Status`; None where no run goes on.

    A killed run leaves its file, so one that was not replaced for `max_age_seconds` says nothing.
    """
    try:
        if time.time() - path.stat().st_mtime > max_age_seconds:
            return None
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, *NO_JSON):
        return None
