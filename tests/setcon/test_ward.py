"""Ward clustering against scikit-learn's."""

import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from setcon.measures.cells import neighbouring_cells
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
