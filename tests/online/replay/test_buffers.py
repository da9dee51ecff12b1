from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_feedback import made_of

from ingest.frame import Frames
from online.clips.clip import Clip, ClipSpec
from online.replay.buffers import LONG_TERM, Fifo, Reservoir
from online.replay.minred import MinRed


def clip(start: int, *, frames: int = 2) -> Clip:
    images = np.full((frames, 1, 1, 3), start % 256, np.uint8)
    run = Frames(images, np.arange(frames), np.zeros(frames, np.bool_))
    return Clip(ClipSpec("r", start, frames), run)


CLIP_BYTES = clip(0).nbytes


def starts(clips) -> list[int]:
    return [c.spec.start for c in clips]


def test_fifo_keeps_the_newest_and_counts_its_bytes():
    fifo = Fifo(3 * CLIP_BYTES)
    for start in range(5):
        fifo.insert(clip(start))
    assert starts(fifo) == [2, 3, 4]
    assert fifo.nbytes == 3 * 6
    fifo.insert(clip(3))
    assert starts(fifo) == [2, 4, 3]


@settings(deadline=None)
@given(
    st.integers(12, 100),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), max_size=80),
    st.integers(0, 3),
)
@pytest.mark.parametrize("kind", ["fifo", "reservoir", "minred"])
def test_a_buffer_never_holds_more_than_its_bytes_nor_a_clip_twice(kind, max_bytes, coming, seed):
    rng = np.random.default_rng(seed)
    pool = {
        "fifo": lambda: Fifo(max_bytes),
        "reservoir": lambda: Reservoir(max_bytes, rng=rng),
        "minred": lambda: MinRed(max_bytes, rng=rng),
    }[kind]()
    for start, frames in coming:
        pool.insert(one := clip(start, frames=frames))
        if isinstance(pool, MinRed):
            pool.update([one], made_of(np.array([[1.0, start, frames]], np.float32)))
        held = list(pool)
        assert len({c.spec for c in held}) == len(held) == len(pool) >= 1
        assert pool.nbytes == sum(c.nbytes for c in held) <= max_bytes


@pytest.mark.parametrize("kind", LONG_TERM.values(), ids=LONG_TERM)
def test_a_long_term_buffer_uses_the_bytes_it_has(kind):
    pool = kind(10 * CLIP_BYTES, rng=np.random.default_rng(0))
    for start in range(50):
        pool.insert(one := clip(start))
        features = np.random.default_rng(start).normal(size=(1, 4)).astype(np.float32)
        pool.update([one], made_of(features))
        assert len(pool) == min(start + 1, 10)


def test_reservoir_keeps_every_clip_equally_often():
    kept: Counter[int] = Counter()
    trials, capacity, seen = 500, 5, 20
    for seed in range(trials):
        reservoir = Reservoir(capacity * CLIP_BYTES, rng=np.random.default_rng(seed))
        for start in range(seen):
            reservoir.insert(clip(start))
        assert len(set(starts(reservoir))) == capacity
        kept.update(starts(reservoir))
    expected = trials * capacity / seen
    counts = np.array([kept[start] for start in range(seen)])
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 44  # 19 degrees of freedom: exceeded once in a thousand


def test_reservoir_holds_a_clip_once_however_often_it_comes():
    reservoir = Reservoir(10 * CLIP_BYTES, rng=np.random.default_rng(0))
    for _ in range(3):
        for start in range(6):
            reservoir.insert(clip(start))
    assert starts(reservoir) == list(range(6))
