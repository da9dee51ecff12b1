import math

import pytest
import torch

from setcon.config import (
    EncoderConfig,
    LossConfig,
    SetConConfig,
    SetEncoderConfig,
    SlotAttentionConfig,
)
from setcon.loss import contrastive_loss, slot_exclusivity
from setcon.matching import match
from setcon.model import SetCon


def make(*, center_inputs=True, **encoder) -> SetCon:
    torch.manual_seed(0)
    return SetCon(
        SetConConfig(
            center_inputs=center_inputs,
            encoder=EncoderConfig(**{"width": 8} | encoder),
            slot_attention=SlotAttentionConfig(num_slots=3, slot_size=6, hidden_size=12),
            set_encoder=SetEncoderConfig(hidden_size=10, output_size=5),
        )
    )


def frames(b=2, t=5, size=8, seed=1):
    return torch.rand(b, t, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frame_stride", [1, 2])
def test_a_run_gives_what_its_triplets_give_one_by_one(frame_stride):
    model, runs = make().double(), frames().double()
    output = model(runs, frame_stride=frame_stride)
    for b in range(2):
        for i in range(5 - 2 * frame_stride):
            index = [i, i + frame_stride, i + 2 * frame_stride]
            triplet = model(runs[b : b + 1, index])
            torch.testing.assert_close(triplet.slots[0], output.slots[b, index])
            torch.testing.assert_close(triplet.predicted[0, 0], output.predicted[b, i])


def test_encode_gives_the_slots_and_attention_of_forward():
    model, runs = make(), frames()
    output, encoded = model(runs), model.encode(runs.flatten(0, 1))
    torch.testing.assert_close(output.slots.flatten(0, 1), encoded.slots)
    torch.testing.assert_close(output.attention.flatten(0, 1), encoded.attention)


@pytest.mark.parametrize("frame_stride", [1, 2])
def test_each_prediction_is_compared_with_the_frame_it_predicts(frame_stride):
    model, config = make().double(), LossConfig(temperature=0.01, standardise=False)
    output = model(frames().double(), frame_stride=frame_stride)
    output.predicted.data.copy_(output.slots[:, 2 * frame_stride :])
    found = model.loss(output, config)
    assert found.contrast.top1.item() == 1
    assert found.contrast.candidates == 10 + 2 * (5 - 2 * frame_stride) - 1
    slotwise = LossConfig(unit="slot", standardise=False)
    assert model.loss(output, slotwise).contrast.top1.item() == 1


@pytest.mark.parametrize("unit", ["set", "slot"])
def test_what_slots_lack_in_exclusivity_is_added_by_its_weight(unit):
    model, valid = make(), torch.tensor([[True, False, True], [True, False, False]])
    output = model(frames())
    counted = torch.cat([output.attention[0], output.attention[1, :3]])
    without, with_it = (
        model.loss(
            output, LossConfig(unit=unit, exclusivity=weight), matching=match(valid, num_frames=5)
        )
        for weight in (0.0, 2.0)
    )
    torch.testing.assert_close(without.loss, without.contrast.loss)
    torch.testing.assert_close(with_it.contrast.loss, without.contrast.loss)
    for found in (without, with_it):
        torch.testing.assert_close(found.exclusivity, slot_exclusivity(counted))
    torch.testing.assert_close(with_it.loss, without.loss + 2 * (1 - slot_exclusivity(counted)))


def test_match_finds_each_triplets_own_state():
    valid = torch.tensor([[True, True, True], [True, False, False]])  # t = 5, second has 3 frames
    found = match(valid, num_frames=5)
    assert found.states.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    (one,) = found.ahead
    assert (one.predictions.tolist(), one.targets.tolist()) == ([0, 1, 2, 3], [2, 3, 4, 7])


def test_match_leaves_out_triplets_between_hops_but_keeps_their_frames():
    valid = torch.tensor([[True, False, True]])
    found = match(valid, num_frames=7)
    assert found.states.tolist() == list(range(7))
    (one,) = found.ahead
    assert (one.predictions.tolist(), one.targets.tolist()) == ([0, 2], [4, 6])


HOLES = [[True, False, True, False, True, False, True], [True, True] + [False] * 5]
"""Hops of two frames, and a run that was filled up."""


@pytest.mark.parametrize(("frame_stride", "valid"), [(1, None), (2, None), (1, HOLES)])
def test_further_steps_are_taken_from_what_was_predicted(frame_stride, valid):
    model, s, t = make().double(), frame_stride, 9
    output = model(frames(t=t).double(), frame_stride=s)
    valid = torch.tensor(valid or [[True] * (t - 2 * s)] * 2)
    filled = {(b, f) for b in range(2) for f in range(t) if not valid[b, max(0, f - 2 * s) :].any()}
    counted = [(b, f) for b in range(2) for f in range(t) if (b, f) not in filled]
    known = {(0, b, f): output.slots[b, f] for b in range(2) for f in range(t)}
    losses, chances = [], []
    for ahead in (1, 2, 3):
        before, just = max(0, ahead - 2), ahead - 1  # a state, until there are predictions
        for b in range(2):
            for f in range((ahead + 1) * s, t):
                earlier, later = known[before, b, f - 2 * s], known[just, b, f - s]
                known[ahead, b, f] = model.transition.step(earlier, later)
        ends = [(b, f) for k, b, f in known if k == ahead and valid[b, f - 2 * s]]
        found = contrastive_loss(
            model.summarise(torch.stack([known[ahead, b, f] for b, f in ends])),
            model.summarise(torch.stack([output.slots[b, f] for b, f in counted])),
            torch.tensor([counted.index(end) for end in ends]),
            LossConfig(),
        )
        losses.append(found.loss)
        chances.append(math.log(len(ends) + len(counted) - 1))
    one, three = (
        model.loss(
            output, LossConfig(horizon=h), matching=match(valid, num_frames=t, horizon=h)
        ).contrast
        for h in (1, 3)
    )
    torch.testing.assert_close(one.loss, losses[0])
    torch.testing.assert_close(three.loss, torch.stack(losses).mean())
    assert (one.chance, three.chance) == pytest.approx((chances[0], sum(chances) / 3))
    assert (three.top1, three.candidates) == (one.top1, one.candidates)


def test_a_model_that_has_collapsed_is_at_chance_however_far_it_predicts():
    model = make()
    output = model(torch.zeros(2, 7, 3, 8, 8))
    output.predicted.data.copy_(output.slots[:, 2:])
    torch.nn.init.zeros_(model.transition.out.weight)
    torch.nn.init.zeros_(model.transition.out.bias)
    found = model.loss(output, LossConfig(horizon=4, standardise=False)).contrast
    assert found.loss.item() == pytest.approx(found.chance, abs=1e-4)
    assert found.chance < math.log(found.candidates)


def test_runs_too_short_for_the_horizon_are_predicted_as_far_as_they_go():
    model = make()
    output = model(frames(t=4))
    assert model.loss(output, LossConfig(horizon=2)).loss != model.loss(output, LossConfig()).loss
    torch.testing.assert_close(
        model.loss(output, LossConfig(horizon=9)).loss,
        model.loss(output, LossConfig(horizon=2)).loss,
    )


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("unit", ["set", "slot"])
def test_a_run_that_was_filled_up_counts_like_the_shorter_run(unit, horizon):
    model, config, runs = make(), LossConfig(unit=unit, horizon=horizon), frames(b=1, t=7)
    filled = runs.clone()
    filled[:, 5:] = filled[:, 4:5]
    valid = torch.tensor([[True, True, True, False, False]])
    matching = match(valid, num_frames=7, horizon=config.horizon)
    found = model.loss(model(filled), config, matching=matching)
    torch.testing.assert_close(found.loss, model.loss(model(runs[:, :5]), config).loss)


@pytest.mark.parametrize("unit", ["set", "slot"])
def test_every_parameter_that_a_loss_uses_gets_a_gradient(unit):
    model = make()
    model.loss(model(frames()), LossConfig(unit=unit)).loss.backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    used = {name for name in idle if not name.startswith("set_encoder.")}
    assert not used
    assert bool(idle) == (unit == "slot")


def test_centred_inputs_run_from_minus_one_to_one():
    centred, plain, images = make(), make(center_inputs=False), frames()[0]
    torch.testing.assert_close(centred.encode(images).slots, plain.encode(images * 2 - 1).slots)


def test_any_image_size_will_do():
    model = make(kind="small")
    assert model.encode(torch.rand(2, 3, 21, 40)).attention.shape == (2, 3, 3 * 5)


@pytest.mark.parametrize("kind", ["paper", "small"])
def test_channels_last_and_bfloat16_give_nearly_the_same(kind):
    model, runs = make(kind=kind, normalisation="batch"), frames(size=16)
    exact = model(runs)
    model = model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(runs)
        found = model.loss(output, LossConfig())
    torch.testing.assert_close(output.slots, exact.slots, rtol=0, atol=0.1)
    assert output.slots.dtype == output.attention.dtype == found.loss.dtype == torch.float32
    found.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_few_steps_learn_to_tell_frames_apart():
    # in float64: within 40 steps the float32 rounding of another processor leads elsewhere
    model, runs, config = make().double(), frames(b=4).double(), LossConfig()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        found = model.loss(model(runs), config)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        losses.append(found.loss.item())
    assert losses[-1] < losses[0] / 2


def test_a_run_shorter_than_one_triplet_is_refused():
    with pytest.raises(ValueError, match="needs 3 frames, got 2"):
        make()(frames(t=2))
