"""The same work on several items at once, for work that releases the interpreter's lock.

Threads live as long as one call, iterator or pool: there is nothing that a fork could lose.
Starting one takes some 50 microseconds.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from queue import Empty, PriorityQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 4
POOL = "pool"
"""What threads are called that nobody waits for at the end."""


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
) -> Iterator[Future[Result]]:
    """What `work` makes of one item after the other, while `workers` threads see to the next ones.

    With one it is made at once, here. When the iterator is closed, nothing more is begun.
    """
    rest = iter(items)
    if workers < 2:
        for item in rest:
            made: Future[Result] = Future()
            try:
                made.set_result(work(item))
            except Exception as error:
                made.set_exception(error)
            yield made
        return
    pool = Pool(workers)
    try:
        begun = deque(pool.submit(work, item) for item in islice(rest, 2 * workers))
        while begun:
            yield begun.popleft()
            begun.extend(pool.submit(work, item) for item in islice(rest, 1))
    finally:
        pool.close()


def begun(work: Callable[[], Result]) -> Future[Result]:
    """What `work` will make, in a thread that the end of the program does not wait for."""
    made: Future[Result] = Future()
    threading.Thread(target=_make, args=(made, work), name=POOL, daemon=True).start()
    return made


def _make(made: Future[Result], work: Callable[[], Result]) -> None:
    if made.set_running_or_notify_cancel():
        try:
            made.set_result(work())
        except BaseException as error:  # it belongs to the thread that asked
            made.set_exception(error)
            del made, work  # which the error's traceback would keep


@dataclass(frozen=True, slots=True, order=True)
class _Task:
    place: tuple[float, int]
    made: Future[Any] = field(compare=False)
    work: Callable[[], Any] | None = field(compare=False)
    """None ends a thread."""


class Pool:
    """Threads that the end of the program does not wait for, unlike those of concurrent.futures:
    an object store may take minutes to answer, or never do."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads = 0
        self._tasks: PriorityQueue[_Task] = PriorityQueue()
        self._count = 0

    def submit(
        self, work: Callable[..., Result], *arguments: Any, after: float = 0
    ) -> Future[Result]:
        """What `work` will make; one thread submits all.

        It may wait until `after` so many others were begun, so that those which are needed sooner
        come first, and none waits for ever.
        """
        made = self._put(partial(work, *arguments), after)
        if self._threads < self._workers:
            self._threads += 1
            threading.Thread(target=self._run, name=POOL, daemon=True).start()
        return made

    def close(self) -> None:
        """Cancel what was not begun; the rest goes on, and nobody waits for it."""
        with suppress(Empty):
            while True:
                self._tasks.get_nowait().made.cancel()
        for _ in range(self._threads):
            self._put(None, math.inf)

    def _put(self, work: Callable[[], Any] | None, after: float) -> Future[Any]:
        self._count += 1
        taken = self._count - self._tasks.qsize()
        task = _Task((taken + after, self._count), Future(), work)
        self._tasks.put(task)
        return task.made

    def _run(self) -> None:
        while (task := self._tasks.get()).work is not None:
            _make(task.made, task.work)
            del task  # while it waits for the next one


class _Locked(Iterator[Item]):
    """An iterator that several threads may take from."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._lock = threading.Lock()

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)
