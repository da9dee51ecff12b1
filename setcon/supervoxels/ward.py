"""Ward's clustering among neighbours only, with pairs merged in parallel.

Merging two clusters of sizes m and n raises the squared error within them by

    m n / (m + n) · |mean - mean'|²

Ward (1963) always merges the cheapest pair. Pairs that are each other's cheapest can be merged at
once (de Rham 1980), so that thousands of cells take some twenty rounds over whole arrays.
"""

import itertools

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_ROUNDS_APART = 4  # between sorting out edges that have become the same, which costs a sort


def ward(
    features: Float[Tensor, "m f"], edges: Int64[Tensor, "2 e"], *, limit: float
) -> Int64[Tensor, " m"]:
    """The cluster of each of m points: the smallest index among its members.

    Only clusters that an edge joins are merged, and only where it costs at most `limit`.
    """
    m = len(features)
    labels = torch.arange(m)
    size, mean = features.new_ones(m), features.clone()
    a, b = edges
    for rounds in itertools.count(1):
        if not len(a):
            break
        cost = size[a] * size[b] / (size[a] + size[b]) * (mean[a] - mean[b]).square().sum(dim=1)
        merged = _cheapest_of_both(cost, a, b, m) & (cost <= limit)
        if not merged.any():
            break
        low, high = torch.minimum(a, b)[merged], torch.maximum(a, b)[merged]
        total = size[low] + size[high]
        weighted = mean[low] * size[low, None] + mean[high] * size[high, None]
        mean[low], size[low] = weighted / total[:, None], total
        joined = torch.arange(m)
        joined[high] = low
        labels = joined[labels]
        a, b = joined[a], joined[b]
        apart = a != b
        a, b = a[apart], b[apart]
        if rounds % _ROUNDS_APART == 0:
            a, b = _distinct(a, b, m)
    return labels


def _cheapest_of_both(
    cost: Float[Tensor, " e"], a: Int64[Tensor, " e"], b: Int64[Tensor, " e"], m: int
) -> Tensor:
    """Edges that are the cheapest of both their ends; of equally cheap ones the first."""
    least = cost.new_full((m,), torch.inf)
    least = least.scatter_reduce(0, a, cost, "amin").scatter_reduce(0, b, cost, "amin")
    index, none = torch.arange(len(cost)), len(cost)
    first = torch.full((m,), none)
    for end in (a, b):
        first = first.scatter_reduce(0, end, torch.where(cost == least[end], index, none), "amin")
    return (first[a] == index) & (first[b] == index)


def _distinct(
    a: Int64[Tensor, " e"], b: Int64[Tensor, " e"], m: int
) -> tuple[Int64[Tensor, " _e"], Int64[Tensor, " _e"]]:
    """Each edge once."""
    keys = torch.unique(torch.minimum(a, b) * m + torch.maximum(a, b))
    return keys // m, keys % m
