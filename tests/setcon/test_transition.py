import pytest
import torch

from setcon.config import TransitionConfig
from setcon.transition import Interaction, Transition

PAPER = TransitionConfig()
INTERACTING = TransitionConfig(kind="interacting", hidden_size=8)


@pytest.mark.parametrize("frame_stride", [1, 2])
def test_each_slot_is_predicted_from_the_same_slot_of_two_frames(frame_stride):
    torch.manual_seed(0)
    transition = Transition(PAPER, slot_size=4).double()
    slots = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    predicted = transition(slots, frame_stride=frame_stride)
    assert predicted.shape == (2, 7 - 2 * frame_stride, 3, 4)
    for b in range(2):
        for i in range(predicted.shape[1]):
            for k in range(3):
                earlier, later = slots[b, i, k], slots[b, i + frame_stride, k]
                inner = transition.project(torch.cat([earlier, later, later - earlier]))
                expected = later + transition.out(transition.norm(inner))
                torch.testing.assert_close(predicted[b, i, k], expected)


@pytest.mark.parametrize("frame_stride", [1, 2])
def test_interacting_slots_see_all_of_their_own_triplet_and_nothing_else(frame_stride):
    torch.manual_seed(0)
    transition = Transition(INTERACTING, slot_size=4).double()
    slots = torch.randn(2, 7, 3, 4, dtype=torch.float64, requires_grad=True)
    predicted = transition(slots, frame_stride=frame_stride)
    assert predicted.shape == (2, 7 - 2 * frame_stride, 3, 4)
    (gradient,) = torch.autograd.grad(predicted[1, 2, 0].sum(), slots)
    seen = gradient.abs().sum(dim=-1) > 0
    expected = torch.zeros(2, 7, 3, dtype=torch.bool)
    expected[1, [2, 2 + frame_stride]] = True
    assert torch.equal(seen, expected)


def test_interacting_slots_have_no_order():
    torch.manual_seed(0)
    transition = Transition(INTERACTING, slot_size=4).double()
    slots = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(transition(slots[:, :, order]), transition(slots)[:, :, order])


def test_interaction_is_attention_and_an_mlp_each_added_to_what_it_reads():
    torch.manual_seed(0)
    interaction = Interaction(8).double()
    hidden = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    projected = interaction.to_attention(interaction.norm_attention(hidden))
    queries, keys, values = projected.split(8, dim=-1)
    attended = (queries @ keys.mT / 8**0.5).softmax(dim=-1) @ values
    between = hidden + interaction.merge(attended)
    expected = between + interaction.mlp(interaction.norm_mlp(between))
    torch.testing.assert_close(interaction(hidden), expected)


@pytest.mark.parametrize("config", [PAPER, INTERACTING], ids=lambda config: config.kind)
def test_a_run_shorter_than_one_triplet_is_refused(config):
    with pytest.raises(ValueError, match="frame stride 2 needs 5 frames, got 4"):
        Transition(config, slot_size=4)(torch.randn(1, 4, 3, 4), frame_stride=2)


def test_numbers_that_say_where_an_object_is_go_on_at_their_velocity_at_first():
    transition = Transition(TransitionConfig(), slot_size=6, geometry=2, measured=2)
    torch.nn.init.zeros_(transition.out.weight)
    torch.nn.init.zeros_(transition.out.bias)
    earlier, later = torch.randn(2, 5, 3, 6, generator=torch.Generator().manual_seed(0))
    predicted = transition.step(earlier, later)
    torch.testing.assert_close(predicted[..., :2], 2 * later[..., :2] - earlier[..., :2])
    assert torch.equal(predicted[..., 2:], later[..., 2:])


def test_what_is_learned_moves_what_is_measured_by_less():
    torch.manual_seed(0)
    transition = Transition(TransitionConfig(), slot_size=6, geometry=2, measured=4)
    with torch.no_grad():
        transition.out.weight.zero_()
        transition.out.bias.fill_(1.0)
        slots = torch.randn(3, 6)
        change = transition.step(slots, slots) - slots
    torch.testing.assert_close(change, torch.tensor([0.02, 0.02, 0.1, 0.1, 1, 1]).expand(3, -1))
