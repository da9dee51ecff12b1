"""Velocities of objects that change slots, pass a gap, or are seen once."""

import numpy as np

from online.analysis.velocities import velocities

NAN = np.nan


def test_an_object_s_velocity_is_the_mean_of_its_steps_in_whatever_slot_it_is():
    objects = np.array([[0, 7, -1], [0, -1, 7], [0, 7, 9]], np.int32)
    centres = np.full((3, 3, 2), NAN, np.float32)
    centres[:, 0] = 5.0
    centres[0, 1], centres[1, 2], centres[2, 1] = (10, 20), (12, 20), (12, 26)
    centres[2, 2] = (1, 1)
    found = velocities(centres, objects, np.array([0, 5, 10]) * 10**8, np.zeros(3, np.bool_))
    expected = np.full((3, 3, 2), NAN)
    expected[0, 1], expected[1, 2], expected[2, 1] = (4, 0), (2, 6), (0, 12)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_nothing_moves_over_a_gap_and_the_other_side_counts_alone():
    objects = np.ones((3, 1), np.int32)
    centres = np.array([[[0, 0]], [[8, 0]], [[9, 0]]], np.float32)
    gap = np.array([True, True, False])
    found = velocities(centres, objects, np.arange(3) * 10**9, gap)
    np.testing.assert_allclose(found[:, 0], [[NAN, NAN], [1, 0], [1, 0]])


def test_one_frame_has_none():
    found = velocities(
        np.zeros((1, 2, 2), np.float32),
        np.ones((1, 2), np.int32),
        np.zeros(1, np.int64),
        np.ones(1, np.bool_),
    )
    assert np.isnan(found).all()
