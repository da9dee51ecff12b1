"""Objects followed through a whole recording, from one window of frames to the next.

window 1   f f f f f f f f
window 2               f f f f f f f f       the frames that both hold say which object is which

Within a window a slot keeps its object. Slots of the next window are put in the order of the last,
pairs with the largest overlap first, and what matches nothing is a new object in a free slot.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

LEAST_OVERLAP = 0.2
"""Intersection over union, in the shared frames, from which on two segments are one object."""


class Tracks:
    """Numbers of the objects that slots hold: 0 is the background, -1 a slot that holds none."""

    def __init__(self, num_slots: int) -> None:
        self.numbers: Int64[NDArray[np.int64], " k"] = np.full(num_slots, -1)
        self.numbers[0] = 0
        self._next = 1

    def follow(
        self,
        before: Int64[np.ndarray, "n h w"] | None,
        now: Int64[np.ndarray, "n h w"],
        held: Bool[np.ndarray, " k"],
    ) -> Int64[np.ndarray, " k"]:
        """For each slot of the new window, the one that it is put into; `numbers` are then theirs.

        `before` and `now` are the segments of both windows in the frames that they share, `before`
        in the order of the slots now; None at a break, where all objects are new. `held` says
        which slots of the new window hold anything.
        """
        count = len(self.numbers)
        order = np.full(count, -1)
        order[0] = 0
        if before is not None:
            overlap = _overlap(before, now, count)
            while overlap.max() >= LEAST_OVERLAP:
                old, new = np.unravel_index(overlap.argmax(), overlap.shape)
                order[new] = old
                overlap[old] = overlap[:, new] = 0
        free = iter(sorted(set(range(count)) - set(order.tolist())))
        numbers = np.full(count, -1)
        for new in range(count):
            matched = order[new] >= 0
            if not matched:
                order[new] = next(free)
            if not held[new]:
                continue
            if matched and self.numbers[order[new]] >= 0:
                numbers[order[new]] = self.numbers[order[new]]
            else:
                numbers[order[new]], self._next = self._next, self._next + 1
        numbers[0] = 0
        self.numbers = numbers
        return order


def _overlap(
    before: Int64[np.ndarray, "n h w"], now: Int64[np.ndarray, "n h w"], count: int
) -> NDArray[np.float64]:
    """Intersection over union of objects; 0 for the background."""
    pairs = np.bincount((before * count + now).ravel(), minlength=count * count)
    both = pairs.reshape(count, count).astype(np.float64)
    either = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
    overlap = both / np.maximum(either, 1)
    overlap[0] = overlap[:, 0] = 0
    return overlap
