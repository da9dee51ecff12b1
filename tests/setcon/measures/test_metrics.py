import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from ingest.frame import UNKNOWN_LABEL
from setcon.measures.metrics import (
    UNKNOWN,
    alpha_labels,
    ari,
    attention_labels,
    effective_rank,
    fg_ari,
    is_annotated,
    mbo,
    miou,
    mse,
    psnr,
    slot_usage_entropy,
    visible_objects,
)

METRICS = {"fg_ari": fg_ari, "ari": ari, "mbo": mbo, "miou": miou}


def labels(*rows: list[int]) -> torch.Tensor:
    return torch.tensor([list(rows)])


def random_labels(seed, n=6, objects=4, slots=5, size=7):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(objects + 1, (n, size, size), generator=generator)
    predicted = torch.randint(slots, (n, size, size), generator=generator)
    keep = torch.rand(n, size, size, generator=generator) < 0.6  # half right, so scores spread
    return truth, torch.where(keep, truth % slots, predicted)


def naive_ari(truth: list[int], predicted: list[int]) -> float:
    """From all ordered pairs of different pixels."""
    n = len(truth)
    same = same_true = same_predicted = 0
    for i, j in product(range(n), repeat=2):
        if i != j:
            same += truth[i] == truth[j] and predicted[i] == predicted[j]
            same_true += truth[i] == truth[j]
            same_predicted += predicted[i] == predicted[j]
    expected = same_true * same_predicted / (n * (n - 1)) if n > 1 else 0.0
    possible = (same_true + same_predicted) / 2 - expected
    return 1.0 if possible == 0 else (same - expected) / possible


def naive_ious(truth: list[int], predicted: list[int]) -> list[list[float]]:
    rows = []
    for c in sorted(set(truth) - {0}):
        object_pixels = {i for i, label in enumerate(truth) if label == c}
        slots = [
            {i for i, label in enumerate(predicted) if label == k} for k in sorted(set(predicted))
        ]
        rows.append([len(object_pixels & slot) / len(object_pixels | slot) for slot in slots])
    return rows


def naive(name: str, truth: list[int], predicted: list[int]) -> float:
    if name == "ari":
        return naive_ari(truth, predicted)
    if name == "fg_ari":
        kept = [i for i, label in enumerate(truth) if label]
        return naive_ari([truth[i] for i in kept], [predicted[i] for i in kept])
    ious = naive_ious(truth, predicted)
    if name == "mbo":
        return sum(max(row) for row in ious) / len(ious)
    matched = zip(*linear_sum_assignment(ious, maximize=True), strict=True)
    return sum(ious[c][k] for c, k in matched) / len(ious)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("objects", "slots"), [(4, 5), (2, 6), (6, 3), (1, 1)])
def test_agrees_with_naive_loops_for_images_and_videos(name, objects, slots):
    truth, predicted = random_labels(seed=objects, objects=objects, slots=slots)
    pairs = zip(truth.flatten(1).tolist(), predicted.flatten(1).tolist(), strict=True)
    expected = [naive(name, *pair) for pair in pairs]
    assert METRICS[name](truth, predicted).tolist() == pytest.approx(expected, abs=1e-6)
    video = METRICS[name](truth[None], predicted[None])
    pooled = naive(name, truth.flatten().tolist(), predicted.flatten().tolist())
    assert video.tolist() == pytest.approx([pooled], abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_pixels_that_are_not_known_do_not_count(name):
    truth, predicted = random_labels(seed=5)
    truth[torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = UNKNOWN
    truth[0] = UNKNOWN
    known = truth != UNKNOWN
    found = METRICS[name](truth.to(torch.uint8), predicted)
    for image in range(1, len(truth)):
        kept = truth[image][known[image]].tolist(), predicted[image][known[image]].tolist()
        assert found[image].item() == pytest.approx(naive(name, *kept))
    assert visible_objects(truth).tolist() == [0, 4, 4, 4, 4, 4]
    assert is_annotated(truth).tolist() == [False, *[True] * 5]


def test_what_is_not_known_has_the_same_label_in_stores_and_scores():
    assert UNKNOWN == UNKNOWN_LABEL


@pytest.mark.parametrize("seed", range(3))
def test_ari_agrees_with_scikit_learn(seed):
    truth, predicted = random_labels(seed)
    for one, other, found, foreground in zip(
        truth, predicted, ari(truth, predicted), fg_ari(truth, predicted), strict=True
    ):
        assert found.item() == pytest.approx(adjusted_rand_score(one.flatten(), other.flatten()))
        kept = one > 0
        expected = adjusted_rand_score(one[kept], other[kept])
        assert foreground.item() == pytest.approx(expected)


def test_worked_example_of_ari():
    # N = [[2, 1], [0, 3]]: R = 2 + 6 = 8, A = 6 + 6, B = 2 + 12, E = 12 * 14 / 30 = 5.6
    truth, predicted = labels([1, 1, 1], [2, 2, 2]), labels([0, 0, 1], [1, 1, 1])
    expected = (8 - 5.6) / ((12 + 14) / 2 - 5.6)
    assert fg_ari(truth, predicted).item() == pytest.approx(expected)
    assert ari(truth, predicted).item() == pytest.approx(expected)


def test_worked_example_of_mbo_and_miou():
    # object 1: IoU 2/3 with slot 0, 1/6 with slot 1; object 2: 0 and 3/4
    truth, predicted = labels([1, 1, 1], [2, 2, 2]), labels([0, 0, 1], [1, 1, 1])
    assert mbo(truth, predicted).item() == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert miou(truth, predicted).item() == pytest.approx((2 / 3 + 3 / 4) / 2)


def test_a_slot_may_serve_two_objects_in_mbo_but_not_in_miou():
    truth, predicted = labels([1, 1, 2, 2]), labels([0, 0, 0, 0])
    assert mbo(truth, predicted).item() == pytest.approx(0.5)
    assert miou(truth, predicted).item() == pytest.approx(0.25)


def test_two_dozen_objects_and_slots_are_matched_as_fast_as_a_few():
    truth, predicted = random_labels(seed=2, n=3, objects=24, slots=30, size=40)
    ious = [naive_ious(*(m[i].flatten().tolist() for m in (truth, predicted))) for i in range(3)]
    best = [np.array(each)[linear_sum_assignment(each, maximize=True)].sum() / 24 for each in ious]
    assert miou(truth, predicted).tolist() == pytest.approx(best)  # 2^24 subsets of a frame


def test_foreground_ari_forgives_a_split_background_and_ari_does_not():
    truth, predicted = labels([0, 0, 0, 0, 1, 2]), labels([3, 4, 3, 4, 0, 1])
    assert fg_ari(truth, predicted).item() == 1
    assert ari(truth, predicted).item() < 0.7


def test_a_renamed_perfect_segmentation_scores_one_everywhere():
    truth = random_labels(seed=0)[0]
    for metric in METRICS.values():
        assert metric(truth, (truth + 2) % 5).tolist() == [1] * len(truth)


def test_one_cluster_scores_zero_for_two_objects_and_one_for_one():
    two, one = labels([1, 1, 2, 2]), labels([1, 1, 1, 1])
    nothing = torch.zeros_like(two)
    assert fg_ari(two, nothing).item() == ari(two, nothing).item() == 0
    assert fg_ari(one, nothing).item() == ari(one, nothing).item() == 1


def test_one_cluster_is_exact_at_the_size_of_a_video():
    truth = torch.ones(1, 211, 97, 101, dtype=torch.uint8)
    assert ari(truth, torch.zeros_like(truth)).item() == 1


def test_empty_truth_has_an_ari_of_one_and_no_mean_over_objects():
    truth, predicted = torch.zeros(1, 2, 2, dtype=torch.long), labels([0, 1], [2, 3])
    assert fg_ari(truth, predicted).item() == 1
    assert math.isnan(mbo(truth, predicted).item())
    assert math.isnan(miou(truth, predicted).item())
    assert visible_objects(truth).item() == 0


def test_visible_objects_counts_labels_and_not_the_largest_one():
    truth = torch.tensor([[0, 5, 5, 2], [0, 0, 0, 7]], dtype=torch.uint8)
    assert visible_objects(truth).tolist() == [2, 1]


def test_alpha_labels_name_the_largest_share():
    alphas = torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1, 1).expand(1, 3, 1, 2, 2)
    assert alpha_labels(alphas).tolist() == [[[1, 1], [1, 1]]]


def test_attention_labels_compare_what_slots_see():
    # slot 0 has the larger share of every position, but counts the last one least
    attention = torch.tensor([[[0.8, 0.8, 0.8, 0.6], [0.2, 0.2, 0.2, 0.4]]])
    found = attention_labels(attention, grid=(2, 2), image_size=(4, 4))
    expected = torch.zeros(4, 4, dtype=torch.long)
    expected[2:, 2:] = 1
    assert torch.equal(found[0], expected)


def test_mse_of_each_image():
    truth = torch.zeros(2, 3, 4, 4)
    images = torch.stack([torch.full((3, 4, 4), 0.1), torch.zeros(3, 4, 4)])
    assert mse(images, truth).tolist() == pytest.approx([0.01, 0])


def test_psnr_is_in_decibels_and_there_is_none_without_an_error():
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(0.0) is None


def test_effective_rank_counts_the_directions_that_vectors_fill():
    generator = torch.Generator().manual_seed(0)
    everywhere = torch.linalg.qr(torch.randn(100, 4, generator=generator)).Q
    everywhere = torch.cat([everywhere, -everywhere])
    assert effective_rank(everywhere) == pytest.approx(4, abs=1e-3)
    line = torch.linspace(0, 1, 50)[:, None] * torch.ones(4)
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.ones(50, 4)) == 0


def test_slot_usage_entropy_runs_from_one_slot_to_all_alike():
    alike = torch.full((2, 4, 9), 0.25)
    one = torch.zeros(2, 4, 9)
    one[:, 2] = 1
    half = torch.zeros(2, 4, 9)
    half[:, :2] = 0.5
    assert slot_usage_entropy(alike) == pytest.approx(1)
    assert slot_usage_entropy(one) == pytest.approx(0)
    assert slot_usage_entropy(half) == pytest.approx(0.5)
    assert slot_usage_entropy(torch.ones(2, 1, 9)) == 1


def test_slots_that_swap_objects_between_frames_cost_the_video_level_only():
    truth = torch.zeros(1, 2, 6, 6, dtype=torch.long)
    truth[:, :, :2, :2], truth[:, :, 3:5, 3:5] = 1, 2
    steady, swapped = truth.clone(), truth.clone()
    swapped[:, 1] = torch.tensor([0, 2, 1])[truth[:, 1]]
    for labels in (steady, swapped):
        assert fg_ari(truth[0], labels[0]).tolist() == [1, 1]
        assert ari(truth[0], labels[0]).tolist() == [1, 1]
    assert fg_ari(truth, steady).item() == 1
    assert fg_ari(truth, swapped).item() < 0.1
    assert ari(truth, swapped).item() < ari(truth, steady).item()
