"""k-means against scikit-learn's, from the same start."""

import torch

from setcon.measures.k_means import ROUNDS, k_means, nearest_centres


def test_it_starts_from_points_far_apart_and_ends_where_the_reference_does():
    from sklearn.cluster import KMeans  # importing it takes seconds in every test process

    points = torch.rand(3, 200, 2, generator=torch.Generator().manual_seed(0))
    centres = k_means(points, 4)
    for own, features in zip(centres, points, strict=True):
        start = features[:1]
        for _ in range(3):
            farthest = torch.cdist(features, start).amin(dim=1).argmax()
            start = torch.cat([start, features[farthest, None]])
        reference = KMeans(4, init=start.numpy(), n_init=1, max_iter=ROUNDS, tol=0)
        reference.fit(features.numpy())
        torch.testing.assert_close(own, torch.from_numpy(reference.cluster_centers_))


def test_more_clusters_than_different_points_leave_centres_unused():
    points = torch.tensor([[[0.0], [0.0], [1.0]]])
    centres = k_means(points, 3)
    labels = nearest_centres(points, centres)[0]
    assert labels[0] == labels[1] != labels[2]
