"""What moves on its own has evidence, under a camera that moves as well; what rests has none."""

import pytest
import torch
from moving_squares import RED, Square, by_cell, scene

from setcon.supervoxels.evidence import FOR_REST, motion_evidence
from setcon.supervoxels.supervoxels import neighbour_distance

SQUARES = (
    Square(side=16, start=(4, 4), velocity=(1, 2)),
    Square(side=12, start=(30, 44), velocity=(0, -3), colour=RED),
)


def evidence(frames, distance=1):
    return motion_evidence(frames.float().movedim(-1, 1), cell=4, distance=distance)


@pytest.mark.parametrize(
    ("pan", "distance"),
    [((0, 0), 1), ((0, 1), 1), ((1, -1), 1), ((0, 4), 1), ((0, 0), 2), ((0, 1), 2)],
)
def test_squares_have_evidence_and_a_panning_background_has_not(pan, distance):
    frames, labels = scene(SQUARES, num_frames=9, pan=pan)
    middle = slice(distance, -distance)
    found = evidence(frames, distance)[middle]
    share = by_cell(labels > 0)[middle]
    assert found[share == 1].mean() > 1
    assert found[share == 0].mean() < -0.2
    assert (found[share == 0] > 0).float().mean() < 0.07


@pytest.mark.parametrize("pan", [(0, 0), (1, 2)])
def test_where_nothing_moves_on_its_own_there_is_none(pan):
    frames, _ = scene([], num_frames=6, pan=pan)
    found = evidence(frames)[1:-1]
    assert (found == FOR_REST).float().mean() > 0.97


def test_a_change_of_light_is_no_motion():
    frames, _ = scene([], num_frames=7)
    light = torch.tensor([1, 1.05, 1.1, 1.05, 1.0, 0.95, 0.9])[:, None, None, None]
    brighter = (frames.float() * light + 4).clamp(0, 255).round().to(torch.uint8)
    assert (evidence(brighter)[1:-1] == FOR_REST).float().mean() > 0.97


@pytest.mark.parametrize(("t", "distance"), [(9, 1), (9, 3), (2, 1), (6, 3)])
def test_frames_without_both_neighbours_are_given_none(t, distance):
    frames, _ = scene(SQUARES, num_frames=t)
    found = evidence(frames, distance)
    inside = range(distance, t - distance)
    assert found.shape == (t, 12, 16)
    assert [i for i in range(t) if found[i].abs().max() > 0] == list(inside)


@pytest.mark.parametrize(
    ("seconds", "num_frames", "apart"),
    [
        (1 / 30, 22, 3),
        (1 / 15, 22, 2),
        (1.0, 22, 1),
        (1 / 200, 22, 7),
        (0.0, 22, 1),
        (1 / 30, 2, 1),
    ],
)
def test_neighbours_are_a_tenth_of_a_second_apart_where_the_run_allows(seconds, num_frames, apart):
    assert neighbour_distance(seconds, num_frames=num_frames) == apart
