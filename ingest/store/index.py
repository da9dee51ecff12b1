"""Times and gaps of a recording, read as far as they are needed."""

import threading
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

from ingest.store.protocols import DTYPES
from ingest.store.records import Index


class ReadIndex:
    """One value a frame, in pieces of `length`: each is read once, and again when it has grown.

    Several threads may use it at once.
    """

    def __init__(
        self, field: Index, length: int, read: Callable[[int, int], Shaped[np.ndarray, " n"]]
    ) -> None:
        """`read` gives the values of frames start..stop, or raises."""
        self._empty = np.empty(0, DTYPES[field])
        self._length = length
        self._read = read
        self._pieces: dict[int, Shaped[np.ndarray, " n"]] = {}
        self._lock = threading.Lock()

    def values(self, start: int, stop: int, committed: int) -> Shaped[np.ndarray, " n"]:
        """A fresh array of those of frames start..stop, of the `committed` ones."""
        numbers = range(start // self._length, -(-stop // self._length) if start < stop else 0)
        if self._missing(numbers, stop):  # who needs what is here waits for no other thread
            with self._lock:
                if missing := self._missing(numbers, stop):
                    self._add(missing[0], missing[-1] + 1, committed)
        pieces = [
            self._pieces[n][max(start - n * self._length, 0) : stop - n * self._length]
            for n in numbers
        ]
        return np.concatenate([self._empty, *pieces])

    def _missing(self, numbers: range, stop: int) -> list[int]:
        return [n for n in numbers if self._has(n) < min(stop, (n + 1) * self._length)]

    def _has(self, number: int) -> int:
        """Up to which frame there is a piece."""
        return number * self._length + len(self._pieces.get(number, self._empty))

    def _add(self, first: int, end: int, committed: int) -> None:
        begin = first * self._length
        found = self._read(begin, min(end * self._length, committed))
        for number in range(first, end):
            skipped = number * self._length - begin
            self._pieces[number] = found[skipped : skipped + self._length]
