"""Cells: their colours, who is next to whom, and the way back to pixels."""

import pytest
import torch

from setcon.cells import cell_colours, neighbouring_cells, spread_to_pixels


@pytest.mark.parametrize(
    ("size", "grid"),
    [((64, 64), (16, 16)), ((48, 64), (12, 16)), ((100, 37), (16, 6)), ((8, 8), (8, 8))],
)
def test_cells_are_about_a_sixteenth_of_the_longer_side(size, grid):
    images = torch.zeros(2, *size, 3, dtype=torch.uint8)
    cells = cell_colours(images, longest=16)
    assert cells.shape == (2, *grid, 3)
    height, width = size
    spread = spread_to_pixels(
        torch.arange(grid[0] * grid[1]).view(1, *grid), height=height, width=width
    )
    assert spread.shape == (1, *size)
    pixels = spread.flatten().bincount()
    assert len(pixels) == grid[0] * grid[1]
    assert pixels.min() > 0


def test_a_cell_has_the_mean_colour_of_its_surroundings():
    images = torch.randint(256, (1, 24, 24, 3), generator=torch.Generator().manual_seed(0)).byte()
    cells = cell_colours(images, longest=12)  # of two pixels each way
    torch.testing.assert_close(cells[0, 5, 7], images[0, 8:14, 12:18].float().mean((0, 1)) / 255)
    torch.testing.assert_close(cells[0, 0, 0], images[0, :4, :4].float().mean((0, 1)) / 255)


def test_neighbours_are_above_below_left_and_right():
    edges = neighbouring_cells(2, 2, 3)
    expected = {(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)}
    expected |= {(a + 6, b + 6) for a, b in expected}
    assert sorted(map(tuple, edges.T.tolist())) == sorted(expected)
