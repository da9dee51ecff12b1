import pytest
import torch

from setcon.config import SlotAttentionConfig
from setcon.slots.slot_attention import SlotAttention


def make(**values) -> SlotAttention:
    torch.manual_seed(0)
    config = SlotAttentionConfig(**{"num_slots": 3, "slot_size": 6, "hidden_size": 10} | values)
    return SlotAttention(config, feature_size=5).double()


def naive_round(module, slots, inputs):
    """One round for one image, position by position and slot by slot."""
    queries = [module.to_queries(module.norm_slots(slot)) for slot in slots]
    keys = [module.to_keys(one) for one in inputs]
    values = [module.to_values(one) for one in inputs]
    attention = torch.empty(len(slots), len(inputs), dtype=torch.float64)
    for position, key in enumerate(keys):
        scores = torch.stack([query @ key / len(key) ** 0.5 for query in queries]).exp()
        attention[:, position] = scores / scores.sum()
    found = []
    for slot, shares in zip(slots, attention, strict=True):
        mean = sum(share * value for share, value in zip(shares, values, strict=True))
        updated = module.gru((mean / shares.sum())[None], slot[None])[0]
        found.append(updated + module.mlp(module.norm_mlp(updated)))
    return torch.stack(found), attention


@pytest.mark.parametrize("iterations", [1, 3])
def test_agrees_with_a_loop_over_positions_and_slots(iterations):
    module = make(iterations=iterations)
    features = torch.randn(2, 7, 5, dtype=torch.float64)
    found = module(features)
    for image in range(2):
        slots, inputs = module.starts, module.norm_inputs(features[image])
        for _ in range(iterations):
            slots, attention = naive_round(module, slots, inputs)
        torch.testing.assert_close(found.slots[image], slots, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.attention[image], attention, rtol=0, atol=1e-6)


def test_slots_compete_for_every_position():
    attention = make()(torch.randn(2, 7, 5, dtype=torch.float64)).attention
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2, 7, dtype=torch.float64))
    assert not torch.allclose(attention.sum(dim=2), torch.ones(2, 3, dtype=torch.float64))


def test_order_of_positions_does_not_matter():
    module, features = make(), torch.randn(1, 7, 5, dtype=torch.float64)
    order = torch.randperm(7)
    torch.testing.assert_close(module(features).slots, module(features[:, order]).slots)


def test_competition_stays_in_float32_under_autocast():
    module = make(iterations=2).float()
    features = torch.randn(4, 50, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(features)
    assert found.slots.dtype == found.attention.dtype == torch.float32
    torch.testing.assert_close(found.attention.sum(dim=1), torch.ones(4, 50), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.slots, module(features).slots, rtol=0, atol=0.1)


def test_starts_learn():
    module = make()
    module(torch.randn(2, 7, 5, dtype=torch.float64)).slots.square().sum().backward()
    assert module.starts.grad is not None
    assert (module.starts.grad.abs().sum(dim=-1) > 0).all()


@pytest.mark.parametrize("name", ["num_slots", "slot_size", "hidden_size", "iterations"])
def test_no_size_may_be_zero(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        SlotAttentionConfig(**{name: 0})
