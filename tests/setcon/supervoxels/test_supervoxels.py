"""Supervoxels of a run: what is counted of them is counted again, one cell after another."""

import numpy as np
import pytest
import torch
from moving_squares import RED, Square, by_cell, scene

from setcon.supervoxels.evidence import FOR_REST
from setcon.supervoxels.supervoxels import CELL, Supervoxels

SQUARES = (
    Square(side=16, start=(4, 4), velocity=(1, 2)),
    Square(side=12, start=(30, 40), velocity=(0, -3), colour=RED),
)


@pytest.fixture(scope="module", params=[(48, 64), (45, 58)], ids=["whole", "not whole"])
def footage(request):
    return scene(SQUARES, num_frames=7, size=request.param)


@pytest.fixture(scope="module")
def pieces(footage) -> Supervoxels:
    return Supervoxels.of(footage[0])


def means_of_cells(frames: torch.Tensor) -> np.ndarray:
    """Colour of each cell in 0..1; the last row and column count again where a cell lacks some."""
    t, height, width, _ = frames.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    means = np.zeros((t, rows, columns, 3))
    for row in range(rows):
        for column in range(columns):
            y = [min(CELL * row + i, height - 1) for i in range(CELL)]
            x = [min(CELL * column + i, width - 1) for i in range(CELL)]
            means[:, row, column] = frames[:, y][:, :, x].double().mean(dim=(1, 2)) / 255
    return means


def test_every_cell_belongs_to_one_and_none_is_empty(footage, pieces):
    height, width = footage[0].shape[1:3]
    assert pieces.labels.shape == (7, -(-height // CELL), -(-width // CELL))
    assert pieces.labels.unique().tolist() == list(range(len(pieces)))
    assert 10 < len(pieces) < 200


def test_areas_places_colours_and_borders_are_those_of_the_labels(footage, pieces):
    colours, labels = means_of_cells(footage[0]), pieces.labels.numpy()
    t, rows, columns = labels.shape
    area, places = np.zeros_like(pieces.area), np.zeros_like(pieces.places)
    colour, border = np.zeros_like(pieces.colour), np.zeros_like(pieces.border)
    for frame, row, column in np.ndindex(t, rows, columns):
        own = labels[frame, row, column]
        area[own, frame] += 1
        places[own, frame] += (row, column)
        colour[own] += colours[frame, row, column]
        for down, right in ((1, 0), (0, 1)):
            if row + down < rows and column + right < columns:
                other = labels[frame, row + down, column + right]
                border[own, other] += own != other
                border[other, own] += own != other
    np.testing.assert_array_equal(pieces.area, area)
    np.testing.assert_array_equal(pieces.places, places)
    np.testing.assert_array_equal(pieces.border, border)
    np.testing.assert_allclose(pieces.colour, colour, rtol=1e-5)
    assert border.any()


def test_the_mean_over_cells_is_that_of_each_one(pieces):
    values = torch.randn(pieces.labels.shape, generator=torch.Generator().manual_seed(0))
    expected = [values[pieces.labels == i].double().mean() for i in range(len(pieces))]
    torch.testing.assert_close(pieces.mean(values), torch.stack(expected))


def test_squares_are_cut_out_and_followed(footage, pieces):
    _, labels = footage
    purity = torch.stack([pieces.mean(by_cell(labels == i)) for i in range(3)], dim=1)
    whole = purity.amax(dim=1) > 0.9
    assert pieces.area.sum(axis=1)[whole.numpy()].sum() > 0.85 * pieces.area.sum()
    alone = [pieces.area[(purity[:, square] > 0.9).numpy()] > 0 for square in (1, 2)]
    assert all(in_frames.any(axis=0).all() for in_frames in alone)
    assert alone[0].all(axis=1).any()  # a piece of the first is seen in every frame


def test_what_moves_has_evidence_and_what_rests_has_not(footage, pieces):
    background = pieces.mean(by_cell(footage[1] == 0))
    assert (pieces.evidence[background < 0.1] > 0.2).all()
    rests = background == 1
    cells = torch.from_numpy(pieces.area.sum(axis=1))[rests]
    assert (pieces.evidence[rests] * cells).sum() / cells.sum() < 0.5 * FOR_REST
    assert pieces.evidence.min() >= FOR_REST - 1e-6


def test_mirrored_ones_are_counted_as_if_they_had_been_found_so(pieces):
    mirrored = pieces.mirrored()
    assert torch.equal(mirrored.labels, pieces.labels.flip(2))
    labels, columns = mirrored.labels.numpy(), np.arange(pieces.labels.shape[2])
    for i in range(len(pieces)):
        own = labels == i
        np.testing.assert_array_equal(mirrored.area[i], own.sum(axis=(1, 2)))
        np.testing.assert_array_equal(mirrored.places[i, :, 1], (own * columns).sum(axis=(1, 2)))
    np.testing.assert_array_equal(mirrored.places[..., 0], pieces.places[..., 0])
    np.testing.assert_array_equal(mirrored.border, pieces.border)
    again = mirrored.mirrored()
    assert torch.equal(again.labels, pieces.labels)
    np.testing.assert_array_equal(again.places, pieces.places)


def test_the_same_frames_give_the_same_ones(footage, pieces):
    again = Supervoxels.of(footage[0].clone())
    assert torch.equal(again.labels, pieces.labels)
    assert torch.equal(again.evidence, pieces.evidence)
    np.testing.assert_array_equal(again.colour, pieces.colour)


@pytest.mark.parametrize("t", [1, 2])
def test_so_few_frames_have_supervoxels_without_evidence(t):
    frames, _ = scene(SQUARES, num_frames=t)
    pieces = Supervoxels.of(frames)
    assert len(pieces) > 10
    assert not pieces.evidence.any()


def test_a_plain_picture_is_few_of_them():
    plain = torch.full((3, 32, 32, 3), 90, dtype=torch.uint8)
    pieces = Supervoxels.of(plain)
    assert len(pieces) <= 64
    assert int(pieces.regions.max()) + 1 < 25
    assert pieces.area.sum() == 3 * 64


def test_regions_are_sets_of_supervoxels_and_have_one_evidence(pieces):
    count = int(pieces.regions.max()) + 1
    assert pieces.regions.unique().tolist() == list(range(count))
    assert count < len(pieces)
    for region in range(count):
        parts = torch.nonzero(pieces.regions == region).flatten()
        assert len(pieces.evidence[parts].unique()) == 1
    values = torch.randn(pieces.labels.shape, generator=torch.Generator().manual_seed(0))
    of_cells = pieces.regions[pieces.labels]
    expected = [values[of_cells == i].double().mean() for i in range(count)]
    means = pieces.region_mean(values)
    torch.testing.assert_close(means, torch.stack(expected)[pieces.regions])


@pytest.mark.parametrize("distance", [1, 3, 7])
def test_what_rests_has_the_same_evidence_however_far_apart_frames_are_compared(distance):
    still = torch.randint(0, 255, (1, 32, 32, 3), dtype=torch.uint8).expand(24, -1, -1, -1)
    found = Supervoxels.of(still.contiguous(), distance=distance)
    assert found.evidence.allclose(torch.full_like(found.evidence, -0.4))
