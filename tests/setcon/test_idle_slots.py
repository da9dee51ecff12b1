import pytest
import torch

from setcon.encoder import EncoderConfig
from setcon.idle_slots import idle_slot, largest_slot, slot_importance, start_at_what_moves
from setcon.loss import LossConfig, contrastive_loss
from setcon.model import SetCon, SetConConfig, match
from setcon.slot_attention import SlotAttentionConfig


def make(*, seed=0, patch=1) -> SetCon:
    torch.manual_seed(seed)
    return SetCon(
        SetConConfig(
            encoder=EncoderConfig(width=8, patch=patch),
            slot_attention=SlotAttentionConfig(num_slots=3, slot_size=6, hidden_size=12),
        )
    )


def frames(b=2, t=5, size=8):
    return torch.rand(b, t, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("importance", "largest", "idle"),
    [
        ([0.9, 0.05, 0.8, 0.1], 3, 1),
        ([0.9, 0.05, 0.8, 0.1], 1, 3),  # the background tells nothing, and is to tell nothing
        ([0.9, 0.4, 0.8, 0.0], 3, None),
        ([0.02, 0.02, 0.02, 0.02], 0, None),
        ([0.0, 0.0, 0.0], 0, None),  # nothing is known yet
        ([-0.1, -0.2, -0.3], 0, None),
        ([0.9, 0.0], 0, None),
    ],
)
def test_the_slot_that_tells_far_less_than_the_others_is_idle(importance, largest, idle):
    assert idle_slot(importance, largest=largest) == idle


def test_importance_is_what_the_contrast_rises_by_without_a_slot():
    model, runs, config = make(), frames(b=3), LossConfig(horizon=2, exclusivity=1.0)
    valid = torch.ones(3, 3, dtype=torch.bool)
    valid[2, 1:] = False
    matching = match(valid, num_frames=5, horizon=2)
    target = torch.tensor([2, 3, 4, 7, 8, 9, 12])
    with torch.no_grad():
        output = model(runs)
        found = slot_importance(model, output, config, matching)
        states = output.slots.flatten(0, 1)[matching.states]
        predicted = output.predicted.flatten(0, 1)[matching.ahead[0].predictions]

        def contrast(slots):
            of = (model.summarise(each[:, slots]) for each in (predicted, states))
            return contrastive_loss(*of, target, LossConfig()).loss.item()

        every = contrast([0, 1, 2])
        expected = [contrast(slots) - every for slots in ([1, 2], [0, 2], [0, 1])]
    assert found == pytest.approx(expected, abs=1e-6)
    assert max(found) - min(found) > 1e-3


def test_a_slot_of_the_largest_share_is_the_largest():
    model = make()
    output = model(frames())
    share = output.attention.mean(dim=(0, 1, 3))
    matching = match(torch.ones(2, 3, dtype=torch.bool), num_frames=5)
    assert largest_slot(output, matching) == int(share.argmax())


@pytest.mark.parametrize("seed", range(4))
def test_the_new_start_takes_what_moves_from_the_largest_slot_and_leaves_the_rest(seed):
    model = make(seed=seed, patch=2)
    with torch.no_grad():  # as if it had learned: slots look at colours, and sharply
        model.encoder.position.linear.weight.zero_()
        model.slot_attention.to_keys.weight *= 6
        model.slot_attention.to_queries.weight *= 6
    ramp = torch.linspace(0.4, 0.6, 16)
    images = (ramp[:, None] + ramp)[None, None].expand(12, 3, 16, 16).clone() / 2
    thing = torch.zeros(12, 16, 16, dtype=torch.bool)
    for i in range(12):
        row, column = 4 * (i % 4), 4 * (i // 4)
        thing[i, row : row + 4, column : column + 4] = True
        images[i, :, row : row + 4, column : column + 4] = torch.tensor([1.0, 0.0, 0.2])[
            :, None, None
        ]
    on_grid = thing[:, ::2, ::2].flatten(1)

    def lead() -> float:
        """By how many logits the slot is further ahead of the largest where the thing is."""
        with torch.no_grad():
            attention = model.encode(images).attention.log()
        ahead = attention[:, slot] - attention[:, largest]
        return float(ahead[on_grid].mean() - ahead[~on_grid].mean())

    with torch.no_grad():
        largest = int(model.encode(images).attention.sum(dim=(0, 2)).argmax())
    slot = (largest + 1) % 3
    start = start_at_what_moves(model, images, slot=slot, largest=largest)
    assert not start.requires_grad
    with torch.no_grad():
        model.slot_attention.starts[slot] = start
    assert lead() > 0.5
