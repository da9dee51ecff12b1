"""Types of options."""

import click
import pytest

from ingest.store.records import RecordSettings
from terminal.parameters import LONGEST_SIDE, FrameSize


@pytest.mark.parametrize(
    ("typed", "size"),
    [("128", 128), ("128x72", (128, 72)), ("64x64", 64), ("8192x1", (8192, 1)), ("native", None)],
)
def test_a_size_of_frames_is_a_side_two_sides_or_the_native_one(typed, size):
    assert FrameSize().convert(typed, None, None) == size


@pytest.mark.parametrize("typed", ["", "0", "0x3", "3x", "-5", "8193", "128x9999", "1.5", "big"])
def test_what_is_not_a_size_is_refused_with_an_example(typed):
    with pytest.raises(click.BadParameter, match=r"use for example 128 or 128x72, with sides of 1"):
        FrameSize().convert(typed, None, None)


def test_a_camera_has_no_native_size():
    with pytest.raises(click.BadParameter, match=r"native: a camera can change its size"):
        FrameSize(takes_native=False).convert("native", None, None)


def test_the_longest_side_is_the_one_that_is_stored():
    assert RecordSettings(size=(1, LONGEST_SIDE)).size == (1, LONGEST_SIDE)
    with pytest.raises(ValueError, match=r"size must lie in 1\.\.8192"):
        RecordSettings(size=(1, LONGEST_SIDE + 1))
