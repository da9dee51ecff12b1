"""Ward clustering of neighbours, of many graphs at once.

Two clusters A and B that touch can merge, at the cost that this adds to the sum of squares:

    cost(A, B) = |A| |B| / (|A| + |B|) · ‖mean(A) - mean(B)‖²

In each round all pairs merge that are cheapest to each other. Where all points are neighbours, that
is Ward's tree exactly; on a grid its merges come in a slightly different order, since a merge can
make a neighbour's cheaper.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_ROUNDS_APART = 4  # between sorting out edges that have become the same, which costs a sort


@dataclass(frozen=True, slots=True, eq=False)
class MergeTree:
    """Each point with the one that it was merged into, a forest over all points."""

    into: Int64[Tensor, " m"]
    """The smallest point of the cluster that took in the cluster of this one; its own number where
    nothing did."""
    height: Float[Tensor, " m"]
    """Cost of that merge, or what is just above the merges before it; infinite where there was
    none."""

    def clusters(self, *, height: float = math.inf) -> Int64[Tensor, " m"]:
        """For each point the smallest one of its cluster, all merges up to a height done."""
        done = self.height <= height
        return _roots(torch.where(done, self.into, torch.arange(len(self.into))))

    def height_of(self, num_clusters: int) -> float:
        """The least height up to which merges leave at most so many clusters, or all merges do."""
        if len(self.height) <= num_clusters:
            return -math.inf
        finite = self.height[self.height.isfinite()]
        merges = len(self.height) - num_clusters
        return float(finite.kthvalue(min(merges, len(finite))).values) if len(finite) else -math.inf

    def cut(self, num_graphs: int, *, num_clusters: int) -> Int64[Tensor, "n m"]:
        """Labels 0 to `num_clusters` - 1 of the points of equally large, connected graphs."""
        heights = self.height.view(num_graphs, -1)
        first = torch.arange(num_graphs)[:, None] * heights.shape[1]
        roots = (heights.topk(num_clusters, dim=1).indices + first).flatten()
        into = self.into.clone()
        into[roots] = roots
        numbers = torch.zeros_like(into)
        numbers[roots] = torch.arange(num_clusters).repeat(num_graphs)
        return numbers[_roots(into)].view(num_graphs, -1)


def merge_tree(
    features: Float[Tensor, "m f"], edges: Int64[Tensor, "2 e"], *, limit: float = math.inf
) -> MergeTree:
    """Merge until no neighbours are left, or none that cost at most `limit`.

    The same points and edges give the same tree.
    """
    count = len(features)
    means, sizes = features.clone(), features.new_ones(count)
    into, heights = torch.arange(count), features.new_full((count,), torch.inf)
    reached = features.new_zeros(count)  # height of the last merge of each cluster
    generator = torch.Generator().manual_seed(0)
    rounds = 0
    while True:
        costs = _costs(means, sizes, edges)
        chosen = _cheapest_to_each_other(costs, edges, count, generator)
        chosen = chosen[costs[chosen] <= limit]
        if not len(chosen):
            return MergeTree(into, heights)
        kept, gone = edges[:, chosen].aminmax(dim=0)
        # a merge comes after those of its parts, also where it costs no more
        before = torch.maximum(reached[kept], reached[gone])
        height = torch.maximum(costs[chosen], before.nextafter(before.new_tensor(torch.inf)))
        into[gone], heights[gone], reached[kept] = kept, height, height
        weights = sizes[kept] / (sizes[kept] + sizes[gone])
        means[kept] = means[gone].lerp(means[kept], weights[:, None])
        sizes[kept] += sizes[gone]
        edges = into[edges]
        edges = edges[:, edges[0] != edges[1]]
        rounds += 1
        if rounds % _ROUNDS_APART == 0:
            edges = _each_once(edges, count)


def _roots(into: Int64[Tensor, " m"]) -> Int64[Tensor, " m"]:
    """Where each point comes to by going on until nothing leads further."""
    while not torch.equal(further := into[into], into):
        into = further
    return into


def _costs(
    means: Float[Tensor, "m f"], sizes: Float[Tensor, " m"], edges: Int64[Tensor, "2 e"]
) -> Float[Tensor, " e"]:
    (a, b), (size_a, size_b) = edges, sizes[edges]
    return size_a * size_b / (size_a + size_b) * (means[a] - means[b]).square().sum(dim=1)


def _cheapest_to_each_other(
    costs: Float[Tensor, " e"],
    edges: Int64[Tensor, "2 e"],
    count: int,
    generator: torch.Generator,
) -> Int64[Tensor, " chosen"]:
    """Edges that cost both ends the least, at most one for each point."""
    a, b = edges
    least = costs.new_full((count,), torch.inf)
    least.scatter_reduce_(0, a, costs, "amin").scatter_reduce_(0, b, costs, "amin")
    mutual = ((costs == least[a]) & (costs == least[b])).nonzero()[:, 0]
    # equal costs, as in an area of one colour, in random order: in order of place, each would wait
    # for its neighbour, and there would be as many rounds as cells
    order = torch.randperm(len(mutual), generator=generator)
    a, b = edges[:, mutual]
    first = torch.full((count,), len(mutual))
    first.scatter_reduce_(0, a, order, "amin").scatter_reduce_(0, b, order, "amin")
    return mutual[(first[a] == order) & (first[b] == order)]


def _each_once(edges: Int64[Tensor, "2 e"], count: int) -> Int64[Tensor, "2 fewer"]:
    low, high = edges.aminmax(dim=0)
    keys = (low * count + high).unique()
    return torch.stack([keys // count, keys % count])
