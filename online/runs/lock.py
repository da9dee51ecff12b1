"""The lock of a run's directory: one trainer at a time, and whether one is at work."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ingest.disk.durable import is_locked
from online.errors import RunError

LOCK_FILE = "lock"
"""It stays when the run has ended; the kernel drops the lock itself with the process."""


class RunLock:
    """Keeps a second trainer out of a run."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._descriptor: int | None = None

    def take(self) -> None:
        """Lock the run's directory, which exists.

        Raises RunError: another trainer is at work in it.
        """
        path = self._run / LOCK_FILE
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if not is_locked(path):  # another process has only looked
                    continue
                os.close(descriptor)
                raise RunError(f"{self._run}: another trainer is at work in this run") from error
            self._descriptor = descriptor
            return

    def release(self) -> None:
        """Let others in; releasing twice is allowed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_at_work(run: Path) -> bool:
    """Whether a trainer is at work in a run's directory."""
    return is_locked(run / LOCK_FILE)
