"""Where a signal must not raise an exception, and has to wait for a moment.

A handler of SIGINT or SIGTERM that raises does so between any two steps of the main thread. In two
places that does harm:

- HDF5 calls Python back to write its files. An exception that comes out of such a call takes the
  whole program down: a segmentation fault.
- Files that belong together are renamed one after the other. In between, neither the old ones nor
  the new ones are whole.

Such places are marked by `uninterrupted`, and handlers that raise ask `has_to_wait` first.

One request can come as several signals: `timeout -s INT` signals its child and then the whole
group, and a wrapper passes on what the terminal has sent already. So a signal within
`REPEAT_SECONDS` of one that was obeyed belongs to the same request.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

REPEAT_SECONDS = 1.0
"""How soon after a signal another one is taken for the same request."""


class _MainThread:
    """How many `uninterrupted` contexts it is in, and the first signal that came meanwhile."""

    depth = 0
    waiting: int | None = None
    obeyed_at = -math.inf


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait until the end of what is inside; only the main thread handles any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _MainThread.depth += 1
    try:
        yield
    finally:
        _MainThread.depth -= 1
        if _MainThread.waiting is not None and not _MainThread.depth:
            number, _MainThread.waiting = _MainThread.waiting, None
            signal.raise_signal(number)


def has_to_wait(number: int) -> bool:
    """For a handler that would raise: whether it must return, to be called again later."""
    if is_uninterrupted() and _MainThread.waiting is None:
        _MainThread.waiting = number
    return is_uninterrupted()


def is_uninterrupted() -> bool:
    """Whether the main thread is in such a place now."""
    return _MainThread.depth > 0


def obeyed() -> None:
    """For a handler: note that a signal is being obeyed."""
    _MainThread.obeyed_at = time.monotonic()


def was_obeyed(since: float) -> float | None:
    """For how many seconds a signal that came after `since`, a monotonic time, is being obeyed."""
    at = _MainThread.obeyed_at
    return time.monotonic() - at if at > since else None


def is_repeat() -> bool:
    """For a handler: whether a signal belongs to a request that is being obeyed already."""
    return time.monotonic() - _MainThread.obeyed_at < REPEAT_SECONDS
