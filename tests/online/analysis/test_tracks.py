"""Objects that are followed from window to window: who keeps a number, and who gets a new one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online.analysis.tracks import LEAST_OVERLAP, Tracks

SLOTS = 4


def picture(**places: int) -> np.ndarray:
    """Two frames in which slot `s2` has the rows from `places["s2"]` on, four each; 0 elsewhere."""
    segments = np.zeros((2, 24, 6), np.int64)
    for name, row in places.items():
        segments[:, row : row + 4] = int(name[1:])
    return segments


def held(*slots: int) -> np.ndarray:
    return np.isin(np.arange(SLOTS), [0, *slots])


def test_in_the_first_window_objects_are_numbered_in_the_order_of_their_slots():
    tracks = Tracks(SLOTS)
    assert tracks.numbers.tolist() == [0, -1, -1, -1]
    order = tracks.follow(None, picture()[:0], held(1, 3))
    assert order.tolist() == [0, 1, 2, 3]
    assert tracks.numbers.tolist() == [0, 1, -1, 2]


def test_objects_keep_slot_and_number_though_their_order_changes():
    tracks = Tracks(SLOTS)
    tracks.follow(None, picture()[:0], held(1, 2))
    order = tracks.follow(picture(s1=0, s2=8), picture(s1=9, s2=1), held(1, 2))
    assert order[:3].tolist() == [0, 2, 1]
    assert tracks.numbers.tolist() == [0, 1, 2, -1]


def test_what_comes_gets_a_free_slot_and_a_new_number_and_what_goes_frees_its_slot():
    tracks = Tracks(SLOTS)
    tracks.follow(None, picture()[:0], held(1, 2))
    order = tracks.follow(picture(s1=0, s2=8), picture(s1=16, s2=8), held(1, 2))
    assert order[2] == 2  # the one that stays
    assert tracks.numbers[2] == 2
    assert order[1] in (1, 3)
    assert tracks.numbers[order[1]] == 3  # a number is given only once
    order = tracks.follow(picture(s2=8), picture(s1=8), held(1))
    assert order[1] == 2
    assert tracks.numbers.tolist() == [0, -1, 2, -1]
    tracks.follow(picture(s2=8), picture(s1=8, s2=0, s3=16), held(1, 2, 3))
    assert sorted(tracks.numbers.tolist()) == [0, 2, 4, 5]


def test_after_a_break_all_objects_are_new():
    tracks = Tracks(SLOTS)
    tracks.follow(None, picture()[:0], held(1, 2))
    order = tracks.follow(None, picture()[:0], held(1, 2))
    assert order.tolist() == [0, 1, 2, 3]
    assert tracks.numbers.tolist() == [0, 3, 4, -1]


@pytest.mark.parametrize(("moved", "same"), [(0, True), (2, True), (3, False), (4, False)])
def test_too_little_overlap_is_another_object(moved, same):
    tracks = Tracks(SLOTS)
    tracks.follow(None, picture()[:0], held(1))
    tracks.follow(picture(s1=0), picture(s1=moved), held(1))
    assert ((4 - moved) / (4 + moved) >= LEAST_OVERLAP) == same
    assert (tracks.numbers == 1).any() == same
    assert (tracks.numbers == 2).any() == (not same)


def test_the_pair_that_overlaps_most_is_first():
    tracks = Tracks(SLOTS)
    tracks.follow(None, picture()[:0], held(1, 2))
    # what is 1 now lies on both, on 2 of before more
    before, now = picture(s1=0, s2=4), picture(s1=3)
    order = tracks.follow(before, now, held(1))
    assert order[1] == 2
    assert tracks.numbers.tolist() == [0, -1, 2, -1]


def test_the_background_is_never_an_object():
    tracks = Tracks(SLOTS)
    tracks.follow(None, picture()[:0], held(1))
    order = tracks.follow(picture(), picture(s1=0), held(1))
    assert order[0] == 0
    assert tracks.numbers[order[1]] == 2
    tracks.follow(picture(), picture(), np.zeros(SLOTS, np.bool_))
    assert tracks.numbers.tolist() == [0, -1, -1, -1]


@given(st.data())
@settings(max_examples=30)
def test_an_order_is_one_and_no_number_is_given_twice(data):
    tracks, given_out = Tracks(SLOTS), set()
    before = None
    for _ in range(4):
        now = np.array(data.draw(st.lists(st.integers(0, 3), min_size=12, max_size=12)))
        segments = now.reshape(1, 3, 4)
        present = np.isin(np.arange(SLOTS), segments)
        known = set(tracks.numbers.tolist())
        shared = segments if before is not None else segments[:0]
        order = tracks.follow(before, shared, present)
        assert sorted(order.tolist()) == list(range(SLOTS))
        assert order[0] == 0
        numbers = tracks.numbers[1:][tracks.numbers[1:] > 0].tolist()
        assert len(numbers) == len(set(numbers)) == present[1:].sum()
        assert not (set(numbers) - known) & given_out
        given_out |= set(numbers)
        before = order[segments] if data.draw(st.booleans()) else None
