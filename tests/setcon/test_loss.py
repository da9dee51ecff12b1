import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from setcon.config import LossConfig
from setcon.loss import contrastive_loss, slot_exclusivity, slotwise_contrastive_loss

STANDARD = LossConfig()
PLAIN = LossConfig(similarity="dot", temperature=0.5, standardise=False)


def batch(predictions=5, states=8, size=4):
    generator = torch.Generator().manual_seed(3)
    predicted = torch.randn(predictions, size, generator=generator, dtype=torch.float64)
    all_states = torch.randn(states, size, generator=generator, dtype=torch.float64)
    target = torch.randperm(states, generator=generator)[:predictions]
    return predicted, all_states, target


def naive_form(rows: list[list[float]], config: LossConfig) -> list[list[float]]:
    if config.standardise:
        for column in range(len(rows[0])):
            values = [row[column] for row in rows]
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            for row in rows:
                row[column] = (row[column] - mean) / math.sqrt(variance + 1e-5)
    if config.similarity == "cosine":
        rows = [[value / math.hypot(*row) for value in row] for row in rows]
    return rows


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def naive_loss(predicted, states, target, config: LossConfig) -> float:
    both = naive_form(predicted.tolist() + states.tolist(), config)
    p, s = both[: len(predicted)], both[len(predicted) :]
    total = 0.0
    for i, own in enumerate(target.tolist()):
        scores = [math.exp(dot(p[i], state) / config.temperature) for state in s]
        others = [
            math.exp(dot(p[i], other) / config.temperature) for j, other in enumerate(p) if j != i
        ]
        total -= math.log(scores[own] / (sum(scores) + sum(others)))
    return total / len(p)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("standardise", [False, True])
def test_agrees_with_naive_loops_in_float64(similarity, standardise):
    config = LossConfig(similarity=similarity, temperature=0.3, standardise=standardise)
    predicted, states, target = batch()
    found = contrastive_loss(predicted, states, target, config)
    assert found.loss.item() == pytest.approx(
        naive_loss(predicted, states, target, config), abs=1e-6
    )
    in_float32 = contrastive_loss(predicted.float(), states.float(), target, config)
    assert in_float32.loss.dtype == torch.float32
    assert in_float32.loss.item() == pytest.approx(found.loss.item(), abs=1e-5)


def test_the_loss_is_the_mean_of_that_of_each_prediction_and_has_the_bits_of_cross_entropy():
    predicted = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    states = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    target = torch.tensor([1, 2, 3, 5, 7, 8])
    config = LossConfig(standardise=False, similarity="dot")
    found = contrastive_loss(predicted.requires_grad_(), states, target, config)
    others = (predicted @ predicted.T).masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    logits = torch.cat([predicted @ states.T, others], dim=1) / config.temperature
    assert torch.equal(found.loss, F.cross_entropy(logits, target))
    assert torch.equal(found.each, F.cross_entropy(logits, target, reduction="none"))
    assert not found.each.requires_grad


def test_a_prediction_is_no_candidate_of_its_own():
    predicted, states, target = batch()
    found = contrastive_loss(predicted, states, target, PLAIN)
    assert found.candidates == 8 + 5 - 1
    scaled = contrastive_loss(predicted[:1], states, target[:1], PLAIN)
    logits = predicted[:1] @ states.T / 0.5
    expected = torch.nn.functional.cross_entropy(logits, target[:1])
    torch.testing.assert_close(scaled.loss, expected)  # exp(0) for itself would make it larger


def test_equal_vectors_cost_the_logarithm_of_the_number_of_candidates():
    found = contrastive_loss(torch.ones(5, 4), torch.ones(8, 4), torch.arange(5), PLAIN)
    assert found.loss.item() == pytest.approx(math.log(found.candidates))


def test_top1_counts_predictions_closest_to_their_own_state():
    states = torch.eye(4)
    predicted = torch.eye(4)[[0, 1, 3]]
    found = contrastive_loss(predicted, states, torch.tensor([0, 1, 2]), PLAIN)
    assert found.top1.item() == pytest.approx(2 / 3)


def test_other_predictions_compete_in_top1():
    states = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    predicted = torch.tensor([[3.0, 1.0], [1.0, 3.0]])
    found = contrastive_loss(predicted, states, torch.arange(2), PLAIN)
    assert found.top1.item() == 0.0
    assert contrastive_loss(predicted[:1], states, torch.zeros(1).long(), PLAIN).top1.item() == 1.0


def test_standardising_removes_offset_and_scale_of_every_dimension():
    predicted, states, target = batch()
    scale, offset = torch.tensor([1.0, 10.0, 0.5, 3.0]), torch.tensor([7.0, 0.0, -2.0, 100.0])
    found = contrastive_loss(predicted * scale + offset, states * scale + offset, target, STANDARD)
    expected = contrastive_loss(predicted, states, target, STANDARD)
    torch.testing.assert_close(found.loss, expected.loss, rtol=0, atol=1e-3)


def test_slotwise_loss_is_the_mean_of_the_loss_of_each_slot_index():
    generator = torch.Generator().manual_seed(4)
    predicted = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    states = torch.randn(8, 3, 4, generator=generator, dtype=torch.float64)
    target = torch.arange(5)
    found = slotwise_contrastive_loss(predicted, states, target, PLAIN)
    each = [naive_loss(predicted[:, k], states[:, k], target, PLAIN) for k in range(3)]
    assert found.loss.item() == pytest.approx(sum(each) / 3, abs=1e-6)
    assert found.candidates == 12


def test_exclusivity_is_what_a_slot_reads_that_no_other_reads():
    third = torch.full((2, 3, 5), 1 / 3)
    assert slot_exclusivity(third).item() == pytest.approx(1 / 3)
    alone = torch.eye(3)[:, [0, 0, 0, 1, 2]][None]  # however much each has
    assert slot_exclusivity(alone).item() == pytest.approx(1.0, abs=1e-5)
    shared = torch.tensor([[[1.0, 0.5], [0.0, 0.5]]])
    expected = ((1 * 1 + 0.5 * 0.5) / 1.5 + 0.5) / 2
    assert slot_exclusivity(shared).item() == pytest.approx(expected, abs=1e-5)
    nothing = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert slot_exclusivity(nothing).item() == pytest.approx(0.5, abs=1e-5)


def test_a_shared_position_is_given_to_the_slot_that_reads_less():
    logits = torch.tensor([[[2.0, 2.0, 2.0, 0.4], [0.0, 0.0, 0.0, 0.0]]], requires_grad=True)
    shares = logits.softmax(dim=1)
    assert shares[0, 0, 3] > shares[0, 1, 3]
    slot_exclusivity(shares).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1, 3] > 0 > logits.grad[0, 0, 3]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert slot_exclusivity(shares.detach().bfloat16()).dtype == torch.float32


def test_loss_is_float32_under_autocast():
    predicted, states, target = (tensor.to(torch.float32) for tensor in batch())
    target = target.long()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = contrastive_loss(predicted, states, target, PLAIN)
        from_bfloat16 = contrastive_loss(predicted.bfloat16(), states.bfloat16(), target, PLAIN)
    torch.testing.assert_close(
        found.loss, contrastive_loss(predicted, states, target, PLAIN).loss, rtol=0, atol=0
    )
    assert from_bfloat16.loss.dtype == torch.float32


def test_gradients_are_right_through_the_statistics_of_the_batch():
    predicted, states, target = batch()
    torch.autograd.gradcheck(
        lambda p, s: contrastive_loss(p, s, target, LossConfig(temperature=1.0)).loss,
        (predicted.requires_grad_(), states.requires_grad_()),
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"similarity": "l2"}, "loss similarity must be one of cosine, dot, got 'l2'"),
        ({"unit": "object"}, "loss unit must be one of set, slot"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"exclusivity": -1.0}, "exclusivity must be at least 0, got -1.0"),
        ({"exclusivity": math.nan}, "exclusivity must be at least 0, got nan"),
        ({"temperature": math.nan}, "temperature must be above 0, got nan"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**values)
