"""Cells of images: what is clustered in place of single pixels.

image h x w ─▶ cells of 1/n of its longer side ─▶ their mean colours ─▶ clusters ─▶ h x w labels
"""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d


def cell_colours(images: UInt8[Tensor, "n h w 3"], *, longest: int) -> Float[Tensor, "n r c 3"]:
    """Colours in 0..1 of `longest` cells along the longer side, each averaged with its neighbours.

    A cell is a pixel at least, so small images have fewer.
    """
    height, width = images.shape[1:3]
    rows, columns = (
        max(1, min(side, round(longest * side / max(height, width)))) for side in (height, width)
    )
    cells = adaptive_avg_pool2d(images.permute(0, 3, 1, 2).float() / 255, (rows, columns))
    smooth = avg_pool2d(cells, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    return smooth.permute(0, 2, 3, 1)


def cell_places(rows: int, columns: int) -> Float[Tensor, "r c 2"]:
    """Row and column of each cell, as shares of the longer side."""
    places = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack(places, dim=2) / max(rows, columns)


def neighbouring_cells(count: int, rows: int, columns: int) -> Int64[Tensor, "2 e"]:
    """Pairs of cells with a common side, of `count` grids whose cells are numbered throughout."""
    cells = torch.arange(count * rows * columns).view(count, rows, columns)
    below = torch.stack([cells[:, :-1].flatten(), cells[:, 1:].flatten()])
    right = torch.stack([cells[:, :, :-1].flatten(), cells[:, :, 1:].flatten()])
    return torch.cat([below, right], dim=1)


def spread_to_pixels(
    labels: Int64[Tensor, "n r c"], *, height: int, width: int
) -> Int64[Tensor, "n h w"]:
    """The label of the cell that each pixel is in."""
    rows, columns = labels.shape[1:]
    row, column = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    return labels[:, row[:, None], column]
