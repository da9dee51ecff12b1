import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online.clips.clip import Interval
from online.clips.holdout import split


def times(n: int, fps: float) -> np.ndarray:
    return (np.arange(n) * 1e9 / fps).astype(np.int64)


def frames_of(intervals) -> set[int]:
    return {frame for i in intervals for frame in range(i.start, i.stop)}


@pytest.mark.parametrize("length", [1, 5, 10, 99, 1000])
@pytest.mark.parametrize("holdout", [0.0, 0.1, 0.2, 0.5])
def test_the_last_share_of_a_complete_recording_is_held_out(length, holdout):
    parts = split(times(length, 30.0), live=False, complete=True, holdout=holdout)
    held_out = frames_of(parts.held_out)
    assert len(held_out) == round(length * holdout - 0.499999)
    assert held_out == set(range(length - len(held_out), length))
    assert frames_of(parts.train) == set(range(length)) - held_out


@given(
    st.lists(st.integers(0, 600), min_size=2, max_size=5, unique=True).map(sorted),
    st.booleans(),
    st.sampled_from([0.05, 0.2, 0.35]),
    st.sampled_from([0.2, 1.0, 3.7]),
    st.integers(0, 9),
)
def test_no_frame_is_ever_reassigned_while_a_recording_grows(lengths, live, holdout, fps, guard):
    trained: set[int] = set()
    held_out: set[int] = set()
    for length in lengths:
        for complete in (False, True) if length == lengths[-1] else (False,):
            parts = split(
                times(length, fps), live=live, complete=complete, holdout=holdout, guard=guard
            )
            assert trained <= frames_of(parts.train)
            assert held_out <= frames_of(parts.held_out)
            trained, held_out = frames_of(parts.train), frames_of(parts.held_out)
            assert not trained & held_out


def test_every_fifth_minute_of_a_camera_is_held_out_with_a_guard_around_it():
    parts = split(times(700, 1.0), live=True, complete=False, holdout=0.2, guard=4)
    assert parts.held_out == (Interval(240, 300), Interval(540, 600))
    assert parts.train == (Interval(0, 236), Interval(304, 536), Interval(604, 696))


def test_what_was_deleted_is_in_neither_part():
    parts = split(times(700, 1.0), live=True, complete=False, holdout=0.2, guard=4)
    assert parts.without(250).held_out == (Interval(250, 300), Interval(540, 600))
    assert parts.without(250).train == (Interval(304, 536), Interval(604, 696))
    assert parts.without(0) == parts
    assert parts.without(700).train == parts.without(700).held_out == ()
