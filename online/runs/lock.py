"""The lock of a run's directory: one trainer at a time, and whether one is at work."""

from __future__ import annotations

import os
from pathlib import Path

from ingest.disk.locks import is_locked, take_lock
from ingest.errors import StoreError
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

        Raises RunError: another trainer is at work in it, or it cannot be locked; OSError: the lock
        cannot be written.
        """
        path = self._run / LOCK_FILE
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            is_taken = take_lock(descriptor, path)
        except StoreError as error:
            os.close(descriptor)
            raise RunError(str(error)) from error
        if not is_taken:
            os.close(descriptor)
            raise RunError(f"{self._run}: another trainer is at work in this run")
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others in; releasing twice is allowed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_at_work(run: Path) -> bool:
    """Whether a trainer is at work in a run's directory; RunError where its lock cannot be seen."""
    try:
        return is_locked(run / LOCK_FILE)
    except StoreError as error:
        raise RunError(str(error)) from error
