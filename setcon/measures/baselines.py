"""Segmentations that need no model: they show what an FG-ARI is worth on some footage.

Blocks of the image separate objects that are in different blocks, colours separate objects that
each have their own, and clusters of the cells of one frame separate what stands out in it. A model
that does no better than the best of these has not been shown to know objects.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from setcon.cells import (
    cell_colours,
    cell_places,
    neighbouring_cells,
    spread_to_pixels,
)
from setcon.measures.k_means import k_means, nearest_centres
from setcon.ward import merge_tree

COLOURED_PIXELS = 20_000
"""Pixels that colours are found from, drawn from those seen with a seed of their own."""
LABELLED_AT_ONCE = 1_000_000
"""Pixels; their distances to all colours are in memory together."""
CLUSTERED_AT_ONCE = 64
"""Frames."""
K_MEANS_CELLS = 16
"""Cells along the longer side of a frame."""
WARD_CELLS = 32
PLACE_WEIGHT = 0.25
"""The whole longer side counts as much as this share of a colour channel's range."""


def block_labels(
    count: int, *, num_segments: int, height: int, width: int
) -> Int64[Tensor, "n h w"]:
    """`count` times a grid of at most `num_segments` blocks, as nearly square as it can be."""
    rows = math.isqrt(num_segments)
    columns = num_segments // rows
    row, column = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    return (row[:, None] * columns + column).expand(count, -1, -1)


def colour_labels(
    images: UInt8[Tensor, "n h w 3"], *, seen: UInt8[Tensor, "m h w 3"], num_segments: int
) -> Int64[Tensor, "n h w"]:
    """The nearest of `num_segments` colours, which k-means finds in the images `seen`.

    The same images give the same labels.
    """
    pixels = seen.flatten(0, 2)
    generator = torch.Generator().manual_seed(0)
    pixels = pixels[torch.randint(len(pixels), (COLOURED_PIXELS,), generator=generator)].float()
    colours = k_means(pixels[None], num_segments)
    parts = images.flatten(0, 2).split(LABELLED_AT_ONCE)
    labels = torch.cat([nearest_centres(part[None].float(), colours)[0] for part in parts])
    return labels.view(images.shape[:-1])


def frame_k_means_labels(
    images: UInt8[Tensor, "n h w 3"], *, num_segments: int
) -> Int64[Tensor, "n h w"]:
    """Cells of each frame by itself, clustered by k-means of their smoothed colours."""
    return _clustered(images, partial(_k_means_cells, num_segments), longest=K_MEANS_CELLS)


def frame_ward_labels(
    images: UInt8[Tensor, "n h w 3"], *, num_segments: int
) -> Int64[Tensor, "n h w"]:
    """Cells of each frame by itself, by Ward clustering of neighbours on colour and place."""
    return _clustered(images, partial(_ward_cells, num_segments), longest=WARD_CELLS)


def _clustered(
    images: UInt8[Tensor, "n h w 3"], cluster: Callable[[Tensor], Tensor], *, longest: int
) -> Int64[Tensor, "n h w"]:
    parts = images.split(CLUSTERED_AT_ONCE)
    labels = torch.cat([cluster(cell_colours(part, longest=longest)) for part in parts])
    return spread_to_pixels(labels, height=images.shape[1], width=images.shape[2])


def _k_means_cells(num_segments: int, colours: Float[Tensor, "n r c 3"]) -> Int64[Tensor, "n r c"]:
    points = colours.flatten(1, 2)
    return nearest_centres(points, k_means(points, num_segments)).view(colours.shape[:-1])


def _ward_cells(num_segments: int, colours: Float[Tensor, "n r c 3"]) -> Int64[Tensor, "n r c"]:
    count, rows, columns, _ = colours.shape
    places = (PLACE_WEIGHT * cell_places(rows, columns)).expand(count, -1, -1, -1)
    features = torch.cat([colours, places], dim=3).flatten(0, 2)
    tree = merge_tree(features, neighbouring_cells(count, rows, columns))
    num_clusters = min(num_segments, rows * columns)
    return tree.cut(count, num_clusters=num_clusters).view(count, rows, columns)
