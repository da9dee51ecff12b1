import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_feedback import made_of

from ingest.frame import Frames
from online.clips.clip import Clip, ClipSpec
from online.errors import ReplayError
from online.replay.mixing import Replay, ReplayConfig


def clip(start: int, *, frames: int = 2) -> Clip:
    images = np.full((frames, 1, 1, 3), start % 256, np.uint8)
    run = Frames(images, np.arange(frames), np.zeros(frames, np.bool_))
    return Clip(ClipSpec("r", start, frames), run)


def starts(clips) -> list[int]:
    return [c.spec.start for c in clips]


CLIP_BYTES = clip(0).nbytes

configs = st.builds(
    ReplayConfig,
    samples_per_insert=st.sampled_from([1.0, 1.5, 3.0, 8.0]),
    fifo_bytes=st.integers(CLIP_BYTES, 9 * CLIP_BYTES),
    long_term=st.sampled_from(["reservoir", "minred"]),
    long_term_bytes=st.just(0) | st.integers(CLIP_BYTES, 20 * CLIP_BYTES),
    fifo_share=st.sampled_from([0.0, 0.3, 1.0]),
    min_clips=st.integers(1, 12),
)


def advance(replay: Replay, source, batches: int) -> list[list[int]]:
    drawn = []
    for _ in range(batches):
        while replay.inserts_due():
            replay.insert(next(source))
        batch = replay.sample()
        replay.update(batch, made_of(features(batch)))
        drawn.append(starts(batch))
    return drawn


def features(clips) -> np.ndarray:
    """Something for each clip that no other has, however often it is asked for."""
    each = [np.random.default_rng(start).normal(size=5) for start in starts(clips)]
    return np.array(each, np.float32)


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
    if config.fifo_bytes + config.long_term_bytes >= 2 * batch_clips * CLIP_BYTES:
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
    state, arrays = json.loads(json.dumps(first.state())), first.arrays()
    fetched: list[ClipSpec] = []

    def fetch(spec: ClipSpec) -> Clip:
        fetched.append(spec)
        return clip(spec.start)

    second = Replay(config, seed=seed + 1, batch_clips=batch_clips)
    second.restore(state, arrays, fetch)
    assert len(set(fetched)) == len(fetched) == len(second) == len(first)
    assert second.nbytes == first.nbytes
    drawn += advance(second, map(clip, range(first.inserts, 10_000)), 15)
    assert drawn == expected


def test_old_clips_come_from_both_buffers_at_the_set_share():
    config = ReplayConfig(
        samples_per_insert=16.0,
        fifo_bytes=20 * CLIP_BYTES,
        long_term_bytes=400 * CLIP_BYTES,
        fifo_share=0.5,
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


@settings(deadline=None, max_examples=100)
@given(configs, st.integers(1, 6), st.lists(st.booleans(), max_size=120))
def test_neither_side_runs_ahead_of_the_other(config, batch_clips, turns):
    replay = Replay(config, seed=0, batch_clips=batch_clips)
    for start, wants_to_insert in enumerate(turns):
        before = (replay.inserts, replay.samples, replay.batches)
        due = replay.inserts_due()
        if wants_to_insert and due:
            replay.insert(clip(start))
            assert (replay.inserts, replay.inserts_due()) == (before[0] + 1, due - 1)
        elif wants_to_insert:
            with pytest.raises(ReplayError, match=f"batch {before[2]} must be drawn"):
                replay.insert(clip(start))
        elif due:
            with pytest.raises(ReplayError, match=f"{due} more clips must be inserted before"):
                replay.sample()
        else:
            replay.sample()
        if wants_to_insert != bool(due):
            assert (replay.inserts, replay.samples, replay.batches) == before
        warm = max(config.min_clips, batch_clips)
        most = math.ceil((replay.samples + batch_clips) / config.samples_per_insert)
        assert replay.inserts <= max(warm, most)
        assert replay.samples <= config.samples_per_insert * replay.inserts


def test_a_buffer_below_one_clip_is_refused_with_its_size():
    replay = Replay(ReplayConfig(long_term_bytes=CLIP_BYTES - 1), seed=0, batch_clips=2)
    with pytest.raises(ReplayError, match=r"^replay.long_term_bytes is 5, .* 6 bytes; raise it"):
        replay.insert(clip(0))


def test_a_store_smaller_than_a_batch_gives_batches_of_all_its_clips():
    replay = Replay(ReplayConfig(samples_per_insert=4.0), seed=0, batch_clips=8)
    epochs = (clip(start) for _ in range(1000) for start in range(3))
    for batch in advance(replay, epochs, 30):
        assert sorted(batch) == [0, 1, 2]
    assert len(replay) == 3


def test_one_sample_per_insert_is_the_stream_itself():
    config = ReplayConfig(samples_per_insert=1.0, fifo_bytes=0, long_term_bytes=0)
    replay = Replay(config, seed=0, batch_clips=4)
    drawn = advance(replay, map(clip, range(100)), 5)
    assert [start for batch in drawn for start in batch] == list(range(20))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"samples_per_insert": 0.5}, r"samples_per_insert must be at least 1, got 0\.5"),
        ({"samples_per_insert": math.inf}, "samples_per_insert must be below inf, got inf"),
        ({"samples_per_insert": math.nan}, "samples_per_insert must be at least 1, got nan"),
        ({"fifo_share": 1.5}, r"fifo_share must lie in 0\.\.1, got 1\.5"),
        ({"fifo_share": math.nan}, r"fifo_share must lie in 0\.\.1, got nan"),
        ({"long_term": "newest"}, "long_term must be one of reservoir, minred, got 'newest'"),
        ({"fifo_bytes": -1}, "fifo_bytes must be at least 0, got -1"),
        ({"long_term_bytes": -1}, "long_term_bytes must be at least 0, got -1"),
        ({"fifo_bytes": 0, "long_term_bytes": 0}, "needs fifo_bytes or long_term_bytes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        ReplayConfig(**bad)
