"""Supervoxels put together into objects, and the segments of these."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from moving_squares import BLUE, RED, YELLOW, Square, by_cell, scene

from setcon.supervoxels.objects import LONG_RUN, group, segments
from setcon.supervoxels.supervoxels import Supervoxels

SQUARES = (
    Square(side=12, start=(32, 46), velocity=(0, -2), colour=RED),
    Square(side=18, start=(4, 4), velocity=(1, 2), colour=BLUE),
)


def likely(pieces: Supervoxels, labels: torch.Tensor) -> torch.Tensor:
    """How much of each supervoxel is of any square."""
    return pieces.mean(by_cell(labels > 0))


def share_both(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("num_frames", [8, LONG_RUN])
@pytest.mark.parametrize("seed", range(3))
def test_two_squares_are_two_objects_the_largest_first(num_frames, seed):
    frames, labels = scene(SQUARES, num_frames=num_frames, seed=seed)
    pieces = Supervoxels.of(frames)
    objects = group(pieces, likely(pieces, labels), threshold=0.5, most=5)
    assert objects.unique().tolist() == [0, 1, 2]
    found = segments(frames, pieces.labels, objects)
    assert share_both(found == 1, labels == 2) > 0.97
    assert share_both(found == 2, labels == 1) > 0.97


def test_two_that_touch_are_kept_apart_and_two_that_look_alike_far_apart_too():
    touching = (
        Square(side=16, start=(16, 10), velocity=(0, 0), colour=RED),
        Square(side=12, start=(16, 26), velocity=(0, 0), colour=BLUE),
    )
    far = (Square(side=12, start=(4, 4)), Square(side=16, start=(28, 40)))
    for squares in (touching, far):
        frames, labels = scene(squares, num_frames=6)
        pieces = Supervoxels.of(frames)
        objects = group(pieces, likely(pieces, labels), threshold=0.5, most=5)
        found = segments(frames, pieces.labels, objects)
        large = int(squares[1].side > squares[0].side)
        assert objects.max() == 2
        assert share_both(found == 1, labels == 1 + large) > 0.9
        assert share_both(found == 2, labels == 2 - large) > 0.9


def test_of_more_objects_than_slots_the_largest_are_kept():
    frames, labels = scene(SQUARES, num_frames=8)
    pieces = Supervoxels.of(frames)
    every, largest, none = (
        group(pieces, likely(pieces, labels), threshold=0.5, most=most) for most in (5, 1, 0)
    )
    assert torch.equal(largest, torch.where(every == 1, 1, 0))
    assert largest.any()
    assert not none.any()


def test_the_threshold_decides_what_is_foreground():
    frames, labels = scene(SQUARES, num_frames=8)
    pieces = Supervoxels.of(frames)
    shares = likely(pieces, labels)
    of_blue = pieces.mean(by_cell(labels == 2))
    foreground = torch.where(shares > 0.5, torch.where(of_blue > 0.5, 0.7, 0.4), 0.1).double()
    for threshold, count in ((0.3, 2), (0.5, 1), (0.7, 0)):
        assert group(pieces, foreground, threshold=threshold, most=5).max() == count


def test_where_nothing_is_foreground_all_is_background():
    frames, _ = scene(SQUARES, num_frames=4)
    pieces = Supervoxels.of(frames)
    objects = group(pieces, torch.zeros(len(pieces)).double(), threshold=0.5, most=5)
    assert objects.shape == (len(pieces),)
    assert not objects.any()
    assert not segments(frames, pieces.labels, objects).any()


def test_specks_are_no_objects():
    frames, labels = scene([Square(side=4, start=(20, 20), colour=YELLOW)], num_frames=4)
    pieces = Supervoxels.of(frames)
    assert not group(pieces, likely(pieces, labels), threshold=0.5, most=5).any()


def test_grouping_leaves_the_supervoxels_as_they_were_and_gives_the_same_again():
    frames, labels = scene(SQUARES, num_frames=8)
    pieces = Supervoxels.of(frames)
    before = [x.copy() for x in (pieces.area, pieces.places, pieces.colour, pieces.border)]
    first, again = (group(pieces, likely(pieces, labels), threshold=0.5, most=5) for _ in range(2))
    assert torch.equal(first, again)
    for old, now in zip(
        before, (pieces.area, pieces.places, pieces.colour, pieces.border), strict=True
    ):
        np.testing.assert_array_equal(old, now)


@pytest.mark.parametrize("size", [(48, 64), (45, 62)])
@pytest.mark.parametrize("start", [(8, 8), (9, 11), (14, 18), (0, 0)])
def test_outlines_are_as_fine_as_the_picture(size, start):
    frames, labels = scene([Square(side=19, start=start, colour=RED)], num_frames=3, size=size)
    pieces = Supervoxels.of(frames)
    objects = group(pieces, likely(pieces, labels), threshold=0.3, most=3)
    found = segments(frames, pieces.labels, objects) > 0
    assert found.shape == frames.shape[:3]
    truth = (labels > 0)[:, None].float()
    wider = F.max_pool2d(truth, 3, stride=1, padding=1)[:, 0] > 0
    narrower = -F.max_pool2d(-truth, 3, stride=1, padding=1)[:, 0] > 0
    assert not (found & ~wider).any()
    assert not (narrower & ~found).any()
