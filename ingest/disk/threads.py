"""The same work on several items at once, for work that releases the interpreter's lock.

Threads live as long as one call or iterator: nothing to close, and nothing that a fork could lose.
Starting one takes some 50 microseconds.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 4


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(work: Callable[[Item], object], items: Iterable[Item], *, workers: int) -> None:
    """Do `work` for every item, on this thread and up to `workers` - 1 others.

    After an error no further item is begun; the first one is raised when all threads are done.
    """
    queue = _Locked(iter(items))
    errors: list[BaseException] = []

    def run() -> None:
        try:
            for item in queue:
                if errors:
                    return
                work(item)
        except BaseException as error:  # it belongs to the thread that asked
            errors.append(error)

    others = [
        threading.Thread(target=run, daemon=True) for _ in range(min(workers, MAX_WORKERS) - 1)
    ]
    for thread in others:
        thread.start()
    run()
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """What `work` makes of one item after the other, while `workers` threads see to the next ones.

    An error is raised in its item's turn. What was begun when the iterator is closed goes on.
    """
    if workers < 2:
        yield from map(work, items)
        return
    rest = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        begun = deque(pool.submit(work, item) for item in islice(rest, 2 * workers))
        while begun:
            result = begun.popleft().result()
            begun.extend(pool.submit(work, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Locked(Iterator[Item]):
    """An iterator that several threads may take from."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._lock = threading.Lock()

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)
