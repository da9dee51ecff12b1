import math

import torch

from setcon.position import PositionEmbedding, fourier_features, position_grid


def test_grid_goes_row_by_row_from_zero_to_one():
    grid = position_grid(2, 3)
    expected = [[0, 0], [0, 0.5], [0, 1], [1, 0], [1, 0.5], [1, 1]]
    torch.testing.assert_close(grid, torch.tensor(expected))


def test_embedding_projects_both_directions_of_both_axes():
    embedding = PositionEmbedding(4)
    with torch.no_grad():
        embedding.linear.weight.copy_(torch.eye(4))
        embedding.linear.bias.zero_()
    torch.testing.assert_close(embedding(2, 3)[1], torch.tensor([0, 0.5, 1, 0.5]))


def test_fourier_features_are_sines_and_cosines_of_octaves():
    y, x = 0.3, 0.8
    features = fourier_features(torch.tensor([[y, x]]), frequencies=2)[0]
    angles = [math.pi * y, 2 * math.pi * y, math.pi * x, 2 * math.pi * x]
    expected = [y, x, *map(math.sin, angles), *map(math.cos, angles)]
    torch.testing.assert_close(features, torch.tensor(expected))


def test_fourier_features_tell_opposite_borders_apart():
    features = fourier_features(position_grid(9, 9), frequencies=3)
    distances = torch.cdist(features, features) + 9 * torch.eye(81)
    assert distances.min() > 0.1
