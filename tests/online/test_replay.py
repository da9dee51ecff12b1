import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online.clip import Clip, ClipSpec
from online.errors import ReplayError
from online.replay import Fifo, Replay, ReplayConfig, Reservoir


def clip(start: int, *, frames: int = 2) -> Clip:
    images = np.full((frames, 1, 1, 3), start % 256, np.uint8)
    return Clip(ClipSpec("r", start, frames), images, np.arange(frames))


def starts(clips) -> list[int]:
    return [c.spec.start for c in clips]


configs = st.builds(
    ReplayConfig,
    samples_per_insert=st.sampled_from([1.0, 1.5, 3.0, 8.0]),
    fifo_clips=st.integers(1, 9),
    reservoir_clips=st.integers(0, 20),
    fifo_share=st.sampled_from([0.0, 0.3, 1.0]),
    min_clips=st.integers(1, 12),
)


def advance(replay: Replay, source, batches: int) -> list[list[int]]:
    drawn = []
    for _ in range(batches):
        while replay.inserts_due():
            replay.insert(next(source))
        drawn.append(starts(replay.sample()))
    return drawn


def test_fifo_keeps_the_newest_and_counts_its_bytes():
    fifo = Fifo(3)
    for start in range(5):
        fifo.insert(clip(start))
    assert starts(fifo) == [2, 3, 4]
    assert fifo.nbytes == 3 * 6
    fifo.insert(clip(3))
    assert starts(fifo) == [2, 4, 3]


def test_fifo_and_reservoir_stay_within_their_bytes():
    rng = np.random.default_rng(0)
    fifo, reservoir = Fifo(100, 60.0), Reservoir(100, 60.0, rng=rng)
    for start in range(200):
        one = clip(start, frames=1 + start % 4)
        fifo.insert(one)
        reservoir.insert(one)
        for pool in (fifo, reservoir):
            assert pool.nbytes == sum(c.nbytes for c in pool) <= 60
            assert len(pool) >= 1


def test_reservoir_keeps_every_clip_equally_often():
    kept: Counter[int] = Counter()
    trials, capacity, seen = 500, 5, 20
    for seed in range(trials):
        reservoir = Reservoir(capacity, rng=np.random.default_rng(seed))
        for start in range(seen):
            reservoir.insert(clip(start))
        assert len(set(starts(reservoir))) == capacity
        kept.update(starts(reservoir))
    expected = trials * capacity / seen
    counts = np.array([kept[start] for start in range(seen)])
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 44  # 19 degrees of freedom: exceeded once in a thousand


def test_reservoir_holds_a_clip_once_however_often_it_comes():
    reservoir = Reservoir(10, rng=np.random.default_rng(0))
    for _ in range(3):
        for start in range(6):
            reservoir.insert(clip(start))
    assert starts(reservoir) == list(range(6))


@settings(deadline=None, max_examples=50)
@given(configs, st.integers(0, 5), st.integers(1, 6))
def test_every_inserted_clip_is_drawn_soon_and_none_twice_in_a_batch(config, seed, batch_clips):
    replay = Replay(config, seed=seed, batch_clips=batch_clips)
    drawn = advance(replay, map(clip, range(10_000)), 25)
    for batch in drawn:
        assert len(set(batch)) == len(batch) <= batch_clips
    waiting = max(config.min_clips, batch_clips)
    seen = {start for batch in drawn for start in batch}
    assert set(range(replay.inserts - waiting)) <= seen


@settings(deadline=None, max_examples=30)
@given(configs, st.integers(1, 6))
def test_samples_per_insert_is_what_was_asked_for(config, batch_clips):
    replay = Replay(config, seed=0, batch_clips=batch_clips)
    source = map(clip, range(10_000))
    for _ in range(60):
        advance(replay, source, 1)
        assert replay.samples <= config.samples_per_insert * replay.inserts
    if config.fifo_clips + config.reservoir_clips >= 2 * batch_clips:
        warm = max(config.min_clips, batch_clips)
        due = max(warm, -(-replay.samples // config.samples_per_insert))
        assert due - 1 <= replay.inserts <= due + batch_clips


@settings(deadline=None, max_examples=50)
@given(configs, st.integers(0, 3), st.integers(1, 5), st.integers(0, 20), st.integers(0, 4))
def test_a_restored_buffer_draws_what_an_uninterrupted_one_draws(
    config, seed, batch_clips, batches, extra
):
    whole = Replay(config, seed=seed, batch_clips=batch_clips)
    expected = advance(whole, map(clip, range(10_000)), batches + 15)

    first = Replay(config, seed=seed, batch_clips=batch_clips)
    drawn = advance(first, map(clip, range(10_000)), batches)
    for start in range(first.inserts, first.inserts + min(extra, first.inserts_due())):
        first.insert(clip(start))  # stopped between two batches, in the middle of filling up
    state = json.loads(json.dumps(first.state()))
    fetched: list[ClipSpec] = []

    def fetch(spec: ClipSpec) -> Clip:
        fetched.append(spec)
        return clip(spec.start)

    second = Replay(config, seed=seed + 1, batch_clips=batch_clips)
    second.restore(state, fetch)
    assert len(set(fetched)) == len(fetched) == len(second) == len(first)
    assert second.nbytes == first.nbytes
    drawn += advance(second, map(clip, range(first.inserts, 10_000)), 15)
    assert drawn == expected


def test_old_clips_come_from_both_buffers_at_the_set_share():
    config = ReplayConfig(
        samples_per_insert=16.0, fifo_clips=20, reservoir_clips=400, fifo_share=0.5
    )
    replay = Replay(config, seed=0, batch_clips=16)
    source = map(clip, range(100_000))
    advance(replay, source, 600)
    recent = 0
    for _ in range(200):
        newest = replay.inserts
        (batch,) = advance(replay, source, 1)
        recent += sum(start >= newest - 20 for start in batch)
    # 1 fresh and 7.5 of 15 from the fifo, and a few by chance from the reservoir
    assert 8 <= recent / 200 <= 10


def test_neither_side_runs_ahead_of_the_other():
    replay = Replay(ReplayConfig(samples_per_insert=2.0), seed=0, batch_clips=2)
    with pytest.raises(ReplayError, match="2 more clips must be inserted before batch 0"):
        replay.sample()
    replay.insert(clip(0))
    assert not replay.ready()
    replay.insert(clip(1))
    assert replay.ready()
    with pytest.raises(ReplayError, match="batch 0 must be drawn"):
        replay.insert(clip(2))
    replay.sample()
    assert replay.ready()
    replay.sample()
    assert replay.inserts_due() == 1


def test_a_store_smaller_than_a_batch_gives_batches_of_all_its_clips():
    replay = Replay(ReplayConfig(samples_per_insert=4.0), seed=0, batch_clips=8)
    epochs = (clip(start) for _ in range(1000) for start in range(3))
    for batch in advance(replay, epochs, 30):
        assert sorted(batch) == [0, 1, 2]
    assert len(replay) == 3


def test_one_sample_per_insert_is_the_stream_itself():
    config = ReplayConfig(samples_per_insert=1.0, fifo_clips=0, reservoir_clips=0)
    replay = Replay(config, seed=0, batch_clips=4)
    drawn = advance(replay, map(clip, range(100)), 5)
    assert [start for batch in drawn for start in batch] == list(range(20))


@pytest.mark.parametrize(
    "bad",
    [
        {"samples_per_insert": 0.5},
        {"fifo_share": 1.5},
        {"fifo_clips": -1},
        {"fifo_clips": 0, "reservoir_clips": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ReplayConfig(**bad)
