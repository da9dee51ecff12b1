"""Ward clustering against scikit-learn's."""

import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from setcon.cells import neighbouring_cells
from setcon.ward import merge_tree


def random_points(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_pairs(count: int, points: int) -> Tensor:
    pairs = torch.combinations(torch.arange(points)).T
    return torch.cat([pairs + graph * points for graph in range(count)], dim=1)


def sum_of_squares(points: Tensor, labels: Tensor) -> float:
    parts = [points[labels == label] for label in labels.unique()]
    return sum(float((part - part.mean(dim=0)).square().sum()) for part in parts)


@pytest.mark.parametrize("num_clusters", [1, 2, 3, 7, 20, 60])
def test_where_all_are_neighbours_the_clusters_are_those_of_the_reference(num_clusters):
    points = random_points(4, 60, 3)
    labels = merge_tree(points.flatten(0, 1), all_pairs(4, 60)).cut(4, num_clusters=num_clusters)
    for own, features in zip(labels, points, strict=True):
        expected = AgglomerativeClustering(num_clusters).fit_predict(features.numpy())
        assert adjusted_rand_score(expected, own.numpy()) == 1
        assert own.unique().tolist() == list(range(num_clusters))


@pytest.mark.parametrize("num_clusters", [3, 8])
def test_on_a_grid_clusters_are_about_as_tight_as_those_of_the_reference(num_clusters):
    rows, columns = 24, 32
    grid = grid_to_graph(rows, columns)
    points = random_points(6, rows * columns, 3)
    points[..., 0] += torch.arange(rows * columns) % columns // 11  # three stripes
    edges = neighbouring_cells(6, rows, columns)
    labels = merge_tree(points.flatten(0, 1), edges).cut(6, num_clusters=num_clusters)
    reference = AgglomerativeClustering(num_clusters, connectivity=grid)
    expected = torch.stack([torch.from_numpy(reference.fit_predict(p.numpy())) for p in points])
    own, theirs = (
        sum(sum_of_squares(p, each) for p, each in zip(points, found, strict=True))
        for found in (labels, expected)
    )
    assert own == pytest.approx(theirs, rel=0.05)


def test_clusters_on_a_grid_are_in_one_piece():
    rows, columns = 12, 16
    edges = neighbouring_cells(1, rows, columns)
    labels = merge_tree(random_points(rows * columns, 3), edges).cut(1, num_clusters=9)[0]
    a, b = edges[:, labels[edges[0]] == labels[edges[1]]]
    piece = torch.arange(rows * columns)
    for _ in range(rows * columns):  # the smallest number spreads within a label
        piece = piece.scatter_reduce(0, a, piece[b], "amin").scatter_reduce(0, b, piece[a], "amin")
    assert len(piece.unique()) == 9


def test_graphs_do_not_influence_each_other():
    points = random_points(3, 48, 2)
    labels = merge_tree(points.flatten(0, 1), neighbouring_cells(3, 6, 8)).cut(3, num_clusters=5)
    for own, features in zip(labels, points, strict=True):
        (alone,) = merge_tree(features, neighbouring_cells(1, 6, 8)).cut(1, num_clusters=5)
        assert adjusted_rand_score(alone.numpy(), own.numpy()) == 1


def test_points_that_are_all_equal_are_merged_and_cut_like_others():
    points = torch.zeros(2 * 1024, 3)
    labels = merge_tree(points, neighbouring_cells(2, 32, 32)).cut(2, num_clusters=4)
    assert [own.unique().tolist() for own in labels] == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [0.02, 0.3, 4.0])
def test_within_a_limit_clusters_are_those_of_the_reference_below_its_distance(limit, seed):
    points = random_points(40, 3, seed=seed)
    # its distance is the root of twice the cost
    reference = AgglomerativeClustering(n_clusters=None, distance_threshold=(2 * limit) ** 0.5)
    expected = reference.fit_predict(points.numpy())
    labels = merge_tree(points, all_pairs(1, 40), limit=limit).clusters()
    assert adjusted_rand_score(expected, labels.numpy()) == 1
    assert all(label == (labels == label).nonzero()[0] for label in labels.unique())


def test_on_a_grid_no_neighbours_are_left_that_cost_no_more_than_the_limit():
    points, edges, limit = random_points(8 * 12, 2), neighbouring_cells(1, 8, 12), 0.2
    labels = merge_tree(points, edges, limit=limit).clusters()
    assert 3 < len(labels.unique()) < 60
    touching = {tuple(pair) for pair in labels[edges].T.tolist() if pair[0] != pair[1]}
    for low, high in touching:
        parts = [points[labels == label] for label in (low, high)]
        within = [sum_of_squares(part, torch.zeros(len(part))) for part in parts]
        together = sum_of_squares(torch.cat(parts), torch.zeros(sum(map(len, parts))))
        assert together - sum(within) > limit * (1 - 1e-9)


def test_a_limit_of_zero_merges_neighbours_that_are_equal():
    points = torch.tensor([[1.0], [1.0], [2.0], [1.0], [1.0], [1.0]])
    row = torch.stack([torch.arange(5), torch.arange(1, 6)])
    assert merge_tree(points, row, limit=0.0).clusters().tolist() == [0, 0, 2, 3, 3, 3]


def test_a_chain_is_cut_where_a_merge_costs_more_than_the_limit():
    points = torch.tensor([[0.0], [0.0], [3.0], [3.0]])  # two pairs: 2·2/4 · 3² = 9
    chain = torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert merge_tree(points, chain, limit=8.9).clusters().tolist() == [0, 0, 2, 2]
    assert merge_tree(points, chain, limit=9.1).clusters().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("count", [1, 7, 39, 40, 50])
def test_up_to_a_height_at_most_so_many_clusters_are_left(count):
    tree = merge_tree(random_points(40, 3), all_pairs(1, 40))
    height = tree.height_of(count)
    assert len(tree.clusters(height=height).unique()) == min(count, 40)


def test_no_height_makes_fewer_clusters_than_all_merges_leave():
    tree = merge_tree(random_points(40, 3), all_pairs(1, 40), limit=0.5)
    left = len(tree.clusters().unique())
    assert len(tree.clusters(height=tree.height_of(1)).unique()) == left > 1


def test_without_edges_every_point_stays_alone():
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert merge_tree(torch.zeros(3, 2), none, limit=9.0).clusters().tolist() == [0, 1, 2]
