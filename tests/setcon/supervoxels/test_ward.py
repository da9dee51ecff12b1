"""Clusters of points in parallel rounds: as scikit-learn and as a plain loop find them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Int64
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from setcon.supervoxels.ward import ward


def points(m: int, f: int, seed: int) -> Float[Tensor, "m f"]:
    return torch.randn(m, f, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_pairs(m: int) -> Int64[Tensor, "2 e"]:
    return torch.combinations(torch.arange(m)).T.contiguous()


def grid(rows: int, columns: int) -> Int64[Tensor, "2 e"]:
    index = torch.arange(rows * columns).view(rows, columns)
    ends = [(index[1:], index[:-1]), (index[:, 1:], index[:, :-1])]
    return torch.cat([torch.stack([a.flatten(), b.flatten()]) for a, b in ends], dim=1)


def connections(edges: Int64[Tensor, "2 e"], m: int) -> Float[Tensor, "m m"]:
    joined = torch.zeros(m, m)
    joined[edges[0], edges[1]] = joined[edges[1], edges[0]] = 1
    return joined


def canonical(labels: list[int]) -> list[int]:
    """Each cluster by the smallest index among its members."""
    first: dict[int, int] = {}
    return [first.setdefault(label, index) for index, label in enumerate(labels)]


def cost(one: Float[Tensor, "n f"], other: Float[Tensor, "l f"]) -> float:
    """How much merging raises the squared error within, from that error itself."""
    within = [
        float((x - x.mean(dim=0)).square().sum()) for x in (torch.cat([one, other]), one, other)
    ]
    return within[0] - within[1] - within[2]


@given(seed=st.integers(0, 10_000), limit=st.floats(0.01, 20))
@settings(max_examples=25)
def test_where_every_pair_is_joined_clusters_are_those_of_scikit_learn(seed, limit):
    features = points(40, 3, seed)
    # its distance is the root of twice the cost
    reference = AgglomerativeClustering(
        n_clusters=None, linkage="ward", distance_threshold=math.sqrt(2 * limit)
    ).fit(features.numpy())
    found = ward(features, all_pairs(40), limit=limit)
    assert found.tolist() == canonical(reference.labels_.tolist())


@pytest.mark.parametrize("seed", range(4))
def test_patches_of_a_grid_are_found_as_scikit_learn_finds_them(seed):
    colours = points(4, 3, seed)
    rows, columns = torch.arange(12)[:, None] // 5, torch.arange(12) // 7
    truth = (rows.clamp_max(1) * 2 + columns).flatten()
    features = 8 * colours[truth] + 0.1 * points(144, 3, seed + 1)
    reference = AgglomerativeClustering(
        n_clusters=None,
        linkage="ward",
        connectivity=connections(grid(12, 12), 144).numpy(),
        distance_threshold=math.sqrt(2 * 10),
    ).fit(features.numpy())
    found = ward(features, grid(12, 12), limit=10.0)
    assert adjusted_rand_score(reference.labels_, found) == 1
    assert adjusted_rand_score(truth, found) == 1


@given(seed=st.integers(0, 10_000), limit=st.floats(0.05, 10))
@settings(max_examples=10)
def test_clusters_of_a_grid_hang_together_and_none_could_be_merged_within_the_limit(seed, limit):
    features, edges = points(48, 2, seed), grid(6, 8)
    labels = ward(features, edges, limit=limit)
    joined = connections(edges, 48) > 0
    clusters = labels.unique().tolist()
    for label in clusters:
        members = (labels == label).nonzero().flatten()
        assert label == int(members[0])
        reached = torch.zeros(48, dtype=torch.bool)
        reached[label] = True
        for _ in range(48):
            reached |= joined[reached].any(dim=0) & (labels == label)
        assert reached.sum() == len(members)
    for low in clusters:
        for high in clusters:
            pair = labels == low, labels == high
            if low < high and joined[pair[0]][:, pair[1]].any():
                assert cost(features[pair[0]], features[pair[1]]) > limit * (1 - 1e-9)


def test_a_limit_of_zero_merges_equals_that_are_neighbours():
    features = torch.tensor([1, 1, 2, 1, 1, 1]).float()[:, None]
    row = torch.stack([torch.arange(5), torch.arange(1, 6)])
    assert ward(features, row, limit=0.0).tolist() == [0, 0, 2, 3, 3, 3]


def test_a_chain_is_cut_where_the_step_costs_more_than_the_limit():
    features = torch.tensor([0.0, 0.0, 3.0, 3.0])[:, None]  # 1 and 2: two pairs, 2·2/4·9 = 9
    chain = torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert ward(features, chain, limit=8.9).tolist() == [0, 0, 2, 2]
    assert ward(features, chain, limit=9.1).tolist() == [0, 0, 0, 0]


def test_without_edges_every_point_stays_alone():
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert ward(torch.zeros(3, 2), none, limit=100.0).tolist() == [0, 1, 2]


def test_edges_may_come_in_any_order_and_direction_and_twice():
    features, edges = points(48, 2, 5), grid(6, 8)
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(0))
    expected = ward(features, edges, limit=1.0)
    assert 1 < len(expected.unique()) < 48
    for other in (edges[:, order], edges.flip(0), torch.cat([edges, edges], dim=1)):
        assert torch.equal(ward(features, other, limit=1.0), expected)
