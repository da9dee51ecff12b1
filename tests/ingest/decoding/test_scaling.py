from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.decoding.scaling import plan_fit
from ingest.store.records import sides


def columns(height: int, width: int) -> np.ndarray:
    """An image whose red channel is the column and whose green channel is the row, from 1."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(1, width + 1)
    image[..., 1] = np.arange(1, height + 1)[:, None]
    return image


def test_crop_keeps_the_middle_of_a_wide_image():
    plan = plan_fit(100, 160, size=50, fit="crop")
    assert (plan.scaled_height, plan.scaled_width) == (50, 80)
    image = plan.place(columns(50, 80))
    assert image.shape == (50, 50, 3)
    assert (image[0, 0, 0], image[0, -1, 0]) == (16, 65)


def test_pad_keeps_the_whole_image_between_black_bars():
    plan = plan_fit(100, 200, size=50, fit="pad")
    image = plan.place(columns(plan.scaled_height, plan.scaled_width))
    assert (plan.scaled_height, plan.scaled_width) == (25, 50)
    assert image.shape == (50, 50, 3)
    assert not image[:12].any()
    assert not image[37:].any()
    assert image[12:37].all(axis=(0, 1))[:2].all()


def test_an_oblong_frame_takes_as_much_of_the_picture_as_fits():
    upright = plan_fit(1080, 1920, size=(128, 72), fit="crop")
    assert (upright.scaled_height, upright.scaled_width) == (72, 128)
    narrow = plan_fit(480, 640, size=(128, 72), fit="crop")
    assert (narrow.scaled_height, narrow.scaled_width) == (96, 128)
    assert narrow.place(columns(96, 128))[[0, -1], 0, 1].tolist() == [13, 84]
    padded = plan_fit(480, 640, size=(128, 72), fit="pad")
    assert (padded.scaled_height, padded.scaled_width) == (72, 96)
    turned = plan_fit(1080, 1920, size=(72, 128), fit="crop", quarter_turns=1)
    assert (turned.scaled_height, turned.scaled_width) == (72, 128)
    assert turned.place(columns(72, 128)).shape == (128, 72, 3)


def test_stretch_fills_the_square():
    plan = plan_fit(100, 200, size=50, fit="stretch")
    assert (plan.scaled_height, plan.scaled_width) == (50, 50)


def test_without_a_size_pixels_become_square_and_upright():
    plan = plan_fit(480, 720, size=None, fit="crop", pixel_aspect=Fraction(8, 9), quarter_turns=1)
    assert (plan.scaled_height, plan.scaled_width) == (480, 640)
    assert (plan.height, plan.width) == (640, 480)


def test_a_quarter_turn_is_counterclockwise():
    plan = plan_fit(4, 6, size=None, fit="crop", quarter_turns=1)
    image = plan.place(columns(4, 6))
    assert image.shape == (6, 4, 3)
    assert tuple(image[0, 0, :2]) == (6, 1)  # what was at the top right is at the top left


def test_a_mask_keeps_its_labels_and_lies_where_its_image_does():
    mask = np.zeros((60, 100), np.uint8)
    mask[20:40, 40:60] = 7
    plan = plan_fit(60, 100, size=30, fit="crop")
    placed = plan.place_nearest(mask)
    assert set(np.unique(placed)) == {0, 7}
    rows, cols = np.nonzero(placed)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (10, 19, 10, 19)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.one_of(st.integers(1, 64), st.tuples(st.integers(1, 64), st.integers(1, 64))),
    fit=st.sampled_from(["crop", "pad", "stretch"]),
    turns=st.integers(0, 3),
    aspect=st.sampled_from([Fraction(1), Fraction(2), Fraction(9, 16)]),
)
def test_every_plan_gives_the_size_it_promises(height, width, size, fit, turns, aspect):
    plan = plan_fit(height, width, size=size, fit=fit, pixel_aspect=aspect, quarter_turns=turns)
    columns, rows = sides(size)
    scaled = np.ones((plan.scaled_height, plan.scaled_width, 3), np.uint8)
    assert plan.place(scaled).shape == (rows, columns, 3)
    assert plan.place_nearest(np.ones((height, width), np.uint8)).shape == (rows, columns)
    upright = plan.turned()
    turned = np.ones((upright.scaled_height, upright.scaled_width, 3), np.uint8)
    assert upright.place(turned).shape == (rows, columns, 3)
    if fit != "pad":
        assert plan.place(scaled).all()


def test_an_oblong_scaled_from_odd_sizes_leaves_no_black_edge():
    plan = plan_fit(1079, 1917, size=128, fit="crop")
    assert min(plan.scaled_height, plan.scaled_width) == 128


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_an_extreme_shape_still_has_one_pixel(fit):
    plan = plan_fit(1, 4000, size=16, fit=fit)
    assert min(plan.scaled_height, plan.scaled_width) >= 1
