"""Segmentations that need no model: they show what an FG-ARI is worth on some footage.

Blocks of the image separate objects that are in different blocks, and colours objects that each
have their own. A model that does no better has not been shown to know objects.
"""

import math

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

COLOURED_PIXELS = 20_000
"""Pixels that colours are found from, drawn from those seen with a seed of their own."""
ROUNDS = 20
LABELLED_AT_ONCE = 1_000_000
"""Pixels; their distances to all colours are in memory together."""


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

    It begins with one pixel's colour and, each time, the one that is farthest from all before it
    (Gonzalez 1985). The same images give the same labels.
    """
    pixels = seen.flatten(0, 2)
    generator = torch.Generator().manual_seed(0)
    pixels = pixels[torch.randint(len(pixels), (COLOURED_PIXELS,), generator=generator)].float()
    colours = pixels[:1]
    for _ in range(num_segments - 1):
        farthest = torch.cdist(pixels, colours).amin(dim=1).argmax()
        colours = torch.cat([colours, pixels[farthest, None]])
    for _ in range(ROUNDS):
        nearest = _nearest(pixels, colours)
        sums = torch.zeros_like(colours).index_add_(0, nearest, pixels)
        counts = nearest.bincount(minlength=len(colours))[:, None]
        colours = torch.where(counts > 0, sums / counts.clamp_min(1), colours)
    return _nearest(images.flatten(0, 2), colours).view(images.shape[:-1])


def _nearest(
    pixels: UInt8[Tensor, "p 3"] | Float[Tensor, "p 3"], colours: Float[Tensor, "k 3"]
) -> Int64[Tensor, " p"]:
    parts = pixels.split(LABELLED_AT_ONCE)
    return torch.cat([torch.cdist(part.float(), colours).argmin(dim=1) for part in parts])
