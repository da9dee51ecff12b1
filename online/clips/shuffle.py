"""The block shuffle: neighbouring clips stay near each other, because they share chunks on disk.

    clips       0 .. 7 | 8 .. 15 | 16 .. 23 | ...      blocks of neighbours
    shuffled    blocks among all, then the clips of every 16 blocks among themselves

Two orders do this. `shuffling` holds a number for each clip, and is that of every plan of up to
`MAX_PACKED` clips. `VastShuffle` finds the numbers when they are asked for, and holds none.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import overload

import numpy as np
from jaxtyping import UInt32

from online.clips.steps import STEP_CLIPS, Steps

BLOCK_CLIPS = 8
"""Neighbouring clips that a shuffle keeps near each other."""
POOL_BLOCKS = 16
"""Blocks whose clips are mixed."""
MAX_PACKED = 1 << 22
"""Clips of the largest plan whose order is held, at 4 bytes each."""
ROUNDS = 4
"""Of the network that permutes blocks: from four on, no simple statistic shows the halves."""
KEPT_POOLS = 4


def shuffling(count: int, *, key: str) -> Steps[UInt32[np.ndarray, " count"]]:
    """Shuffle blocks of neighbours, then the clips of every few blocks among themselves."""
    rng = random.Random(key)  # stable between versions, unlike numpy's streams
    blocks = [range(i, min(i + BLOCK_CLIPS, count)) for i in range(0, count, BLOCK_CLIPS)]
    rng.shuffle(blocks)
    shuffled = array("I")
    for i in range(0, len(blocks), POOL_BLOCKS):
        pool = [clip for block in blocks[i : i + POOL_BLOCKS] for clip in block]
        rng.shuffle(pool)
        shuffled.extend(pool)
        if i % (STEP_CLIPS // BLOCK_CLIPS) == 0:
            yield 4 * count
    return np.frombuffer(shuffled, np.uint32) if count else np.empty(0, np.uint32)


class VastShuffle(Sequence[int]):
    """Numbers in such an order; a pool of them is made when one of it is asked for.

    The blocks are permuted by a Feistel network over the smallest square of a power of two that
    holds them all. A number that falls beyond them is permuted again, so each block comes once.
    The last block, which may be short, stays last: then every place before it is in a full pool.
    """

    def __init__(self, numbers: Sequence[int], *, key: str) -> None:
        """`numbers` are those of clips in time order, of which nothing is copied."""
        self._numbers = numbers
        self._count = count = len(numbers)
        self._key = key
        self._blocks = count // BLOCK_CLIPS
        """Those that are full."""
        self._half_bits = max(1, ((self._blocks - 1).bit_length() + 1) // 2)
        self._pool = lru_cache(KEPT_POOLS)(self._made_pool)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...

    def __getitem__(self, place: int | slice) -> int | list[int]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(self._count))]
        pool, within = divmod(range(self._count)[place], BLOCK_CLIPS * POOL_BLOCKS)
        return self._numbers[self._pool(pool)[within]]

    def _made_pool(self, pool: int) -> list[int]:
        first = pool * POOL_BLOCKS
        clips: list[int] = []
        for place in range(first, min(first + POOL_BLOCKS, self._blocks)):
            begin = BLOCK_CLIPS * self._block(place)
            clips += range(begin, begin + BLOCK_CLIPS)
        if first + POOL_BLOCKS > self._blocks:
            clips += range(BLOCK_CLIPS * self._blocks, self._count)
        random.Random(f"{self._key}/{pool}").shuffle(clips)
        return clips

    def _block(self, place: int) -> int:
        """Which block comes at a place."""
        block = self._permuted(place)
        while block >= self._blocks:
            block = self._permuted(block)
        return block

    def _permuted(self, number: int) -> int:
        bits, mask = self._half_bits, (1 << self._half_bits) - 1
        left, right = number >> bits, number & mask
        for turn in range(ROUNDS):
            mixed = hashlib.blake2b(f"{self._key}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(mixed, "little") & mask)
        return left << bits | right
