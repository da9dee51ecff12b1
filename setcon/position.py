"""Where a feature sits in the image: a grid, a learned projection of it, and Fourier features.

Rows come first: position i of a grid of `width` columns is row i // width and column i % width.
Both axes run from 0 to 1 inclusive, whatever the resolution, so nothing learned depends on it.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

_LEAST_SPREAD = 1e-2


def position_grid(height: int, width: int, *, like: Tensor | None = None) -> Float[Tensor, "p 2"]:
    """(y, x) of every position of a grid, from 0 to 1 inclusive, row by row.

    Of the type and on the device of `like`, else in float32 on the CPU.
    """
    device = None if like is None else like.device
    y = torch.linspace(0, 1, height, device=device)
    x = torch.linspace(0, 1, width, device=device)
    grid = torch.cartesian_prod(y, x)
    return grid if like is None else grid.to(like.dtype)


def own_coordinates(
    positions: Float[Tensor, "*q"],
    centre: Float[Tensor, "*c"],
    spread: Float[Tensor, "*c"],
    *,
    reach: float,
) -> Float[Tensor, "*p"]:
    """Positions from an object's centre in units of its spread, clipped to -reach..reach.

    An object may be a single cell, of no spread: a hundredth of the picture is the least.
    """
    return ((positions - centre) / spread.clamp_min(_LEAST_SPREAD)).clamp(-reach, reach)


class PositionEmbedding(nn.Module):
    """A linear projection of the grid [y, x, 1-y, 1-x] to the size of what it is added to."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4, size)

    def forward(self, height: int, width: int) -> Float[Tensor, "p c"]:
        """The embedding of every position of a grid, row by row."""
        grid = position_grid(height, width, like=self.linear.weight)
        return self.linear(torch.cat([grid, 1 - grid], dim=-1))


def fourier_features(
    positions: Float[Tensor, "*q a"], *, frequencies: int
) -> Float[Tensor, "*q a+2*a*{frequencies}"]:
    """The positions themselves, then sine and cosine of π·2^i times each, for i < `frequencies`."""
    octaves = math.pi * 2.0 ** torch.arange(frequencies, device=positions.device)
    angles = (positions[..., None] * octaves.to(positions.dtype)).flatten(-2)
    return torch.cat([positions, angles.sin(), angles.cos()], dim=-1)
