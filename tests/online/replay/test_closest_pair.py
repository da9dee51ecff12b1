from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online.replay.closest_pair import GRID, ClosestPair, on_grid


def naive_pair(held: dict[int, np.ndarray]) -> tuple[int, int]:
    """All pairs by loops; the most alike, and of those the one with the smallest keys."""
    pairs = combinations(sorted(held), 2)
    return min(pairs, key=lambda pair: (-sum(held[pair[0]] * held[pair[1]]), pair))


# few values, so that many pairs are exactly as much alike
vectors = st.lists(st.sampled_from([-1.0, 0.0, 1.0, 3.0]), min_size=3, max_size=3)
puts = st.dictionaries(st.integers(0, 12), vectors, min_size=1, max_size=4)


@settings(deadline=None, max_examples=300)
@given(st.lists(puts | st.integers(0, 12), max_size=40), st.sampled_from([1, 3]))
def test_the_pair_is_that_of_comparing_all_with_all(changes, ask_every):
    pair, held = ClosestPair(), {}
    for step, change in enumerate(changes):
        if isinstance(change, dict):
            directions = on_grid(np.array(list(change.values())))
            pair.put(list(change), directions)
            held |= dict(zip(change, directions, strict=True))
        elif change in held:
            pair.remove(change)
            del held[change]
        assert len(pair) == len(held)
        if len(held) >= 2 and step % ask_every == 0:
            assert pair.find() == naive_pair(held)


def test_what_is_held_decides_and_not_how_it_came_to_be():
    rng = np.random.default_rng(0)
    directions = on_grid(rng.normal(size=(300, 96)))
    at_once, one_by_one = ClosestPair(), ClosestPair()
    at_once.put(range(300), directions)
    for key in rng.permutation(300).tolist():
        one_by_one.put([key], directions[key : key + 1])
    while len(at_once) > 2:
        found = at_once.find()
        assert found == one_by_one.find()
        for pair in (at_once, one_by_one):
            pair.remove(found[0])


def test_similarities_are_exact():
    rng = np.random.default_rng(0)
    directions = on_grid(rng.normal(size=(40, 500)))
    whole = (directions * GRID).astype(np.int64)
    assert np.array_equal(whole / GRID, directions)
    assert np.array_equal(directions.astype(np.float32), directions)
    products = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in whole.tolist()]
                for x in whole[:3].tolist()]  # fmt: skip
    assert np.array_equal(directions[:3] @ directions.T, np.array(products) / GRID**2)


def test_a_single_direction_has_no_pair():
    pair = ClosestPair()
    pair.put([0], np.ones((1, 1)))
    with pytest.raises(ValueError, match="needs two directions, got 1"):
        pair.find()


@pytest.mark.parametrize("held", [100, 800])
def test_a_change_compares_few_with_all_and_never_all_with_all(held):
    rng = np.random.default_rng(0)
    pair, batch, steps = ClosestPair(), 8, 100
    pair.put(range(held), on_grid(rng.normal(size=(held, 16))))
    before = pair.compared
    for step in range(steps):
        some = rng.choice(np.fromiter(pair.keys(), int), batch, replace=False)
        pair.put(some.tolist(), on_grid(rng.normal(size=(batch, 16))))
        pair.put([held + step], on_grid(rng.normal(size=(1, 16))))
        pair.remove(pair.find()[0])
    per_step = (pair.compared - before) / steps
    assert per_step < 2 * (batch + 1) * held  # all with all would be held times held
