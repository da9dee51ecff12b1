"""Places in the program where a process is killed, or stopped for longer than its peers wait."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Literal

from online.queue.connection import Connection
from online.queue.feed import Feed
from online.queue.server import Server

Signal = Literal["SIGKILL", "SIGSTOP"]

POINTS: dict[str, tuple[Any, str, bool]] = {
    "trainer: before a credit": (Connection, "grant", True),
    "trainer: after a credit": (Connection, "grant", False),
    "trainer: before an insertion": (Feed, "inserted", True),
    "trainer: after an insertion": (Feed, "inserted", False),
    "trainer: before a sync of a checkpoint": (os, "fsync", True),
    "trainer: after a sync of a checkpoint": (os, "fsync", False),
    "trainer: before a rename in a checkpoint": (Path, "replace", True),
    "trainer: after a rename in a checkpoint": (Path, "replace", False),
    "trainer: before a checkpoint gets its name": (Path, "rename", True),
    "trainer: after a checkpoint has its name": (Path, "rename", False),
    "server: before a send": (Server, "_send_parts", True),
    "server: after a send": (Server, "_send_parts", False),
}
STOPPED_SECONDS = 4.5
"""How long a process is stopped: its peers hear nothing for 3 s, and disconnect."""


def arm(point: str, passing: int, how: Signal) -> None:
    """Have this process killed or stopped the nth time that it reaches `point`."""
    owner, name, before = POINTS[point]
    real, seen = getattr(owner, name), 0
    befall = _stop if how == "SIGSTOP" else _kill

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        is_now = seen == passing
        if is_now and before:
            befall()
        result = real(*args, **kwargs)
        if is_now and not before:
            befall()
        return result

    setattr(owner, name, wrapped)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    """Stop this process; another one continues it, as it cannot do so itself."""
    wake = f"sleep {STOPPED_SECONDS}; kill -CONT {os.getpid()}"
    subprocess.Popen(["sh", "-c", wake], stderr=subprocess.DEVNULL)  # it may be killed meanwhile
    os.kill(os.getpid(), signal.SIGSTOP)
