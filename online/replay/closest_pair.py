"""The two most alike of a changing set of directions, without comparing all with all.

    put b directions     b x n similarities: their own nearest, and whose nearest they now are
    remove one           none: rows that it was nearest to keep its similarity as an upper bound
    find the pair        only rows whose bound is the largest and not exact are compared again

Each row keeps an upper bound on its similarity to any other, and the key of the other where the
bound is exact. The pair is found once the largest bound of all is exact: nothing can exceed it.

Every answer depends only on the directions held, not on how they came to be there: a run that
resumes from a checkpoint must drop the clips that an uninterrupted one drops. Floating-point sums
would break that, as their last bits depend on how a matrix product is blocked. So directions are
rounded to multiples of 2^-24, which makes the arithmetic exact. Products of two components are then
multiples of 2^-48, and so are sums of them. Partial sums of a dot product of unit vectors are at
most about 1 in size (Cauchy-Schwarz), that is 2^48 such steps. Float64 holds every integer up to
2^53, so nothing is ever rounded, whatever the order of the additions: a similarity is the same
number on any machine, and equal ones compare equal.
"""

from __future__ import annotations

from collections.abc import KeysView, Sequence

import numpy as np
from jaxtyping import Float, Int64

GRID = 2.0**24
"""Float32 holds multiples of 1 / GRID up to 1 exactly, so a checkpoint keeps them as float32."""
_UNKNOWN = -1
"""Instead of a key: the nearest has left, and the bound is at least as large as what is left."""
_FIRST_ROWS = 64


class ClosestPair:
    """Unit vectors under keys, which are ints from 0; ties go to the smallest keys."""

    def __init__(self) -> None:
        self.compared = 0
        """Similarities computed so far."""
        self._row: dict[int, int] = {}
        # rows 0..len(self) of each are in use, in no order
        self._keys = np.empty(0, np.int64)
        self._directions = np.empty((0, 0))
        self._nearest = np.empty(0, np.int64)  # key of the most alike other, or _UNKNOWN
        self._bound = np.empty(0)  # similarity to it; where it is unknown, nothing is more alike

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, key: int) -> bool:
        return key in self._row

    def keys(self) -> KeysView[int]:
        """All keys."""
        return self._row.keys()

    def directions(self, keys: Sequence[int]) -> Float[np.ndarray, "b e"]:
        """The directions under `keys`."""
        return self._directions[[self._row[key] for key in keys] or slice(0)]

    def put(self, keys: Sequence[int], directions: Float[np.ndarray, "b e"]) -> None:
        """Add what `on_grid` gave under new `keys`, or put it in place of what was there.

        Each key once.
        """
        rows = self._rows_of(keys, directions.shape[1])
        self._directions[rows] = directions
        n, put_keys = len(self), np.asarray(keys, np.int64)
        bound, nearest = self._bound[:n], self._nearest[:n]
        # Rows whose nearest has moved: their old similarity stays as a bound for all that have not
        # moved, and those that have are compared with every row below.
        nearest[np.isin(nearest, put_keys)] = _UNKNOWN
        similar = self._similarities(rows)

        # What each row makes of the directions put: a closer one becomes its nearest, and the bound
        # is exact again, even where it was unknown.
        best, best_key = _most_alike(similar.T, put_keys)
        closer = best > bound
        # Equally close, and the nearest is known: the smaller key wins, as everywhere. Where it is
        # unknown, a row of the same similarity and a smaller key may be there, so it stays unknown,
        # and `find` compares the row again should it matter.
        tied = (best == bound) & (nearest != _UNKNOWN)
        nearest[tied] = np.minimum(nearest, best_key)[tied]
        bound[closer], nearest[closer] = best[closer], best_key[closer]
        # Last, the rows put were compared with all, so theirs is exact in any case.
        bound[rows], nearest[rows] = _most_alike(similar, self._keys[:n])

    def remove(self, key: int) -> None:
        """Forget the direction under `key`."""
        hole, last = self._row.pop(key), len(self)
        self._nearest[: last + 1][self._nearest[: last + 1] == key] = _UNKNOWN
        if hole != last:
            for array in (self._keys, self._directions, self._nearest, self._bound):
                array[hole] = array[last]
            self._row[int(self._keys[hole])] = hole

    def find(self) -> tuple[int, int]:
        """Keys of the two directions that are most alike, the smaller first.

        Raises ValueError: there are fewer than two.
        """
        n = len(self)
        if n < 2:
            raise ValueError(f"a pair needs two directions, got {n}")
        bound, nearest = self._bound[:n], self._nearest[:n]
        while True:
            top = np.flatnonzero(bound == bound.max())
            unknown = top[nearest[top] == _UNKNOWN]
            if not len(unknown):  # no row can be closer to any other than these are
                first = top[self._keys[top].argmin()]
                return int(self._keys[first]), int(nearest[first])
            bound[unknown], nearest[unknown] = _most_alike(
                self._similarities(unknown), self._keys[:n]
            )

    def _similarities(self, rows: Int64[np.ndarray, " b"]) -> Float[np.ndarray, "b n"]:
        """Similarities of `rows` to all, -inf to themselves."""
        similar = self._directions[rows] @ self._directions[: len(self)].T
        similar[np.arange(len(rows)), rows] = -np.inf
        self.compared += similar.size
        return similar

    def _rows_of(self, keys: Sequence[int], size: int) -> Int64[np.ndarray, " b"]:
        """Rows of `keys`, with room made for new ones."""
        new = [key for key in keys if key not in self._row]
        if len(self) + len(new) > len(self._keys):
            self._grow(max(_FIRST_ROWS, 2 * (len(self) + len(new))), size)
        for key in new:
            row = self._row[key] = len(self)
            self._keys[row], self._nearest[row], self._bound[row] = key, _UNKNOWN, -np.inf
        return np.array([self._row[key] for key in keys], np.int64)

    def _grow(self, rows: int, size: int) -> None:
        n = len(self)
        for name in ("_keys", "_directions", "_nearest", "_bound"):
            old = getattr(self, name)
            new = np.empty((rows, size) if old.ndim == 2 else rows, old.dtype)
            new[:n] = old[:n] if n else 0
            setattr(self, name, new)


def on_grid(directions: Float[np.ndarray, "*b e"]) -> Float[np.ndarray, "*b e"]:
    """Vectors at unit length, to the nearest multiples of 1 / GRID; a vector of zeros stays."""
    length = np.linalg.norm(directions, axis=-1, keepdims=True)
    return np.rint(directions / np.maximum(length, np.finfo(np.float64).tiny) * GRID) / GRID


def _most_alike(
    similar: Float[np.ndarray, "b n"], keys: Int64[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
    """For each row the largest similarity, and the smallest key that has it."""
    best = similar.max(axis=1)
    tied = np.where(similar == best[:, None], keys, np.iinfo(np.int64).max)
    return best, tied.min(axis=1)
