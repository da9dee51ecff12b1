"""Where a signal must not raise an exception, and has to wait for a moment.

A handler of SIGINT or SIGTERM that raises does so between any two steps of the main thread. In two
places that does harm:

- HDF5 calls Python back to write its files. An exception that comes out of such a call takes the
  whole program down: a segmentation fault.
- Files that belong together are renamed one after the other. In between, neither the old ones nor
  the new ones are whole.

Such places are marked by `uninterrupted`, and handlers that raise ask `has_to_wait` first.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _MainThread:
    """How many `uninterrupted` contexts it is in, and which signals came meanwhile."""

    depth = 0
    waiting: list[int] = []  # noqa: RUF012 - there is one main thread


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
        while _MainThread.waiting and not _MainThread.depth:
            signal.raise_signal(_MainThread.waiting.pop())


def has_to_wait(number: int) -> bool:
    """For a handler that would raise: whether it must return, to be called again later."""
    if _MainThread.depth:
        _MainThread.waiting.append(number)
    return _MainThread.depth > 0
