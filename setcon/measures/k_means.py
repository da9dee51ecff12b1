"""k-means of several sets of points at once, with no chance in it.

It starts from the first point of a set and, each time, the point that is farthest from all chosen
before it (Gonzalez 1985), so the same points give the same clusters.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

ROUNDS = 20


def k_means(points: Float[Tensor, "n m f"], num_clusters: int) -> Float[Tensor, "n k f"]:
    """Centres of `num_clusters` clusters of each set; a cluster that loses all points stays."""
    centres = points[:, :1]
    for _ in range(num_clusters - 1):
        farthest = torch.cdist(points, centres).amin(dim=2).argmax(dim=1)
        centres = torch.cat([centres, _picked(points, farthest[:, None])], dim=1)
    for _ in range(ROUNDS):
        nearest = nearest_centres(points, centres)
        sums = torch.zeros_like(centres).scatter_add_(1, _wide(nearest, points), points)
        ones = torch.ones_like(nearest, dtype=points.dtype)
        counts = torch.zeros_like(centres[..., 0]).scatter_add_(1, nearest, ones)[..., None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    return centres


def nearest_centres(
    points: Float[Tensor, "n m f"], centres: Float[Tensor, "n k f"]
) -> Int64[Tensor, "n m"]:
    """The number of the centre that each point is nearest to."""
    return torch.cdist(points, centres).argmin(dim=2)


def _picked(points: Float[Tensor, "n m f"], which: Int64[Tensor, "n p"]) -> Float[Tensor, "n p f"]:
    return points.gather(1, _wide(which, points))


def _wide(which: Int64[Tensor, "n p"], points: Float[Tensor, "n m f"]) -> Int64[Tensor, "n p f"]:
    return which[..., None].expand(-1, -1, points.shape[2])
