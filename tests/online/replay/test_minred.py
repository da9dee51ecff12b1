from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_feedback import made_of

from ingest.frame import Frames
from online.clips.clip import Clip, ClipSpec
from online.replay.closest_pair import on_grid
from online.replay.long_term import Feedback
from online.replay.minred import SMOOTHING, MinRed


def clip(start: int, *, frames: int = 1) -> Clip:
    images = np.full((frames, 1, 1, 3), start % 256, np.uint8)
    run = Frames(images, np.arange(frames), np.zeros(frames, np.bool_))
    return Clip(ClipSpec("r", start, frames), run)


CLIP_BYTES = clip(0).nbytes


def starts(clips) -> list[int]:
    return [c.spec.start for c in clips]


class Naive:
    """The same buffer, which compares all with all for every clip that leaves."""

    def __init__(self, max_bytes: int, *, rng: np.random.Generator) -> None:
        self.max_bytes, self.rng = max_bytes, rng
        self.clips: list[Clip] = []
        self.directions: dict[ClipSpec, np.ndarray] = {}

    def insert(self, new: Clip) -> None:
        if new.spec in [held.spec for held in self.clips]:
            return
        self.clips.append(new)
        while sum(held.nbytes for held in self.clips) > self.max_bytes:
            seen = [i for i, held in enumerate(self.clips) if held.spec in self.directions]
            if len(seen) < 2:
                gone = 0
            else:
                gone = min(combinations(seen, 2), key=self.unlike)[int(self.rng.integers(2))]
            self.directions.pop(self.clips.pop(gone).spec, None)

    def unlike(self, pair: tuple[int, int]) -> float:
        one, other = (self.directions[self.clips[i].spec] for i in pair)
        return -sum(a * b for a, b in zip(one.tolist(), other.tolist(), strict=True))

    def update(self, clips: list[Clip], feedback: Feedback) -> None:
        for one, feature in zip(clips, feedback.features, strict=True):
            if one.spec in [held.spec for held in self.clips]:
                new = on_grid(feature.astype(np.float64))
                old = self.directions.get(one.spec, new)
                self.directions[one.spec] = on_grid(new + SMOOTHING * (old - new))


clips = st.builds(clip, st.integers(0, 30), frames=st.integers(1, 3))
values = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 7.0])
features = st.lists(values, min_size=3, max_size=3)
updates = st.dictionaries(st.integers(0, 30), features, min_size=1, max_size=4)


def apply(change: Clip | dict[int, list[float]], *pools: MinRed | Naive) -> None:
    for pool in pools:
        if isinstance(change, Clip):
            pool.insert(change)
        else:
            # the batch that the model was trained on holds what is held and what is not
            batch = [clip(start, frames=frames) for start in change for frames in (1, 2, 3)]
            rows = [row for row in change.values() for _ in (1, 2, 3)]
            pool.update(batch, made_of(np.array(rows, np.float32)))


@settings(deadline=None, max_examples=300)
@given(st.integers(9, 30), st.lists(clips | updates, max_size=60), st.integers(0, 3))
def test_the_same_clips_leave_as_when_all_are_compared_with_all(max_bytes, changes, seed):
    minred = MinRed(max_bytes, rng=np.random.default_rng(seed))
    naive = Naive(max_bytes, rng=np.random.default_rng(seed))
    for change in changes:
        apply(change, minred, naive)
        assert [c.spec for c in minred] == [c.spec for c in naive.clips]


@settings(deadline=None, max_examples=100)
@given(st.lists(clips | updates, max_size=40), st.lists(clips | updates, max_size=40))
def test_a_restored_buffer_lets_the_same_clips_go(before, after):
    rng_of_whole, rng = np.random.default_rng(0), np.random.default_rng(1)
    whole = MinRed(24, rng=rng_of_whole)
    for change in before:
        apply(change, whole)
    rng.bit_generator.state = rng_of_whole.bit_generator.state
    restored = MinRed(24, rng=rng)
    restored.restore(list(whole), inserts=0, arrays=whole.arrays())
    for change in after:
        apply(change, whole, restored)
        assert [c.spec for c in restored] == [c.spec for c in whole]
    assert {name: array.tolist() for name, array in restored.arrays().items()} == {
        name: array.tolist() for name, array in whole.arrays().items()
    }


def on_circle(degrees: list[float]) -> np.ndarray:
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1).astype("f4")


def test_a_rare_scene_outlives_any_number_of_common_ones():
    minred = MinRed(6 * CLIP_BYTES, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for start in range(300):
        minred.insert(one := clip(start))
        angle = 90.0 if start == 4 else float(rng.uniform(-10, 10))
        minred.update([one], made_of(on_circle([angle])))
    assert 4 in starts(minred)
    assert len(minred) == 6


def test_a_clip_that_was_not_trained_on_does_not_leave():
    minred = MinRed(4 * CLIP_BYTES, rng=np.random.default_rng(0))
    seen = [clip(start) for start in range(4)]
    for one in seen:
        minred.insert(one)
    minred.update(seen, made_of(on_circle([0.0, 90.0, 180.0, 270.0])))
    for start in (4, 5):
        minred.insert(clip(start))
    assert {4, 5} <= set(starts(minred))


def test_where_none_was_trained_on_the_oldest_leaves():
    minred = MinRed(3 * CLIP_BYTES, rng=np.random.default_rng(0))
    for start in range(5):
        minred.insert(clip(start))
    assert starts(minred) == [2, 3, 4]


def test_features_are_smoothed_each_time_a_clip_is_seen():
    minred = MinRed(3 * CLIP_BYTES, rng=np.random.default_rng(0))
    one = clip(0)
    minred.insert(one)
    for degrees in (0.0, 60.0):
        minred.update([one], made_of(5 * on_circle([degrees])))
    assert np.allclose(minred.arrays()["direction"], on_circle([30.0]), atol=1e-6)
