import math

import numpy as np
import pytest
import torch

from online.errors import Diverged
from online.training.batch import Batch, as_floats
from online.training.config import OptimizerConfig, TrainingConfig
from online.training.trainer import Trainer
from setcon.config import LossConfig, SetConConfig
from setcon.loss import compared, contrastive_loss, slot_exclusivity
from setcon.model import SetCon

CPU = torch.device("cpu")


def trainer(
    *, seed: int = 0, frame_stride: int = 1, loss: LossConfig | None = None, **optimizer: object
) -> Trainer:
    torch.manual_seed(seed)
    return Trainer(
        SetCon(SetConConfig()),
        frame_stride=frame_stride,
        loss=loss or LossConfig(),
        optimizer=OptimizerConfig(**optimizer),  # type: ignore[arg-type]
        training=TrainingConfig(precision="float32"),
        device=CPU,
    )


def batch(*, b: int = 3, t: int = 6, span: int = 2, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(256, (b, t, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return Batch(frames, torch.ones(b, t - span, dtype=torch.bool))


def test_a_step_has_the_loss_of_the_model_written_out() -> None:
    learner, data = trainer(), batch()
    images = as_floats(data.frames).flatten(0, 1)
    slots = learner.model.encode(images).slots.unflatten(0, (3, 6))
    predicted = learner.model.predict(slots).flatten(0, 1)
    target = torch.tensor([2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 16, 17])
    expected = contrastive_loss(
        learner.model.summarise(predicted),
        learner.model.summarise(slots.flatten(0, 1)),
        target,
        LossConfig(),
    )
    result = learner.step(data)
    assert result.loss == pytest.approx(expected.loss.item(), abs=1e-5)
    exclusivity = slot_exclusivity(learner.untrained.encode(images).attention)
    assert result.exclusivity == pytest.approx(exclusivity.item(), abs=1e-6)
    assert (result.states, result.triplets) == (18, 12)
    assert result.chance == pytest.approx(math.log(29))


def test_frames_that_fill_up_a_clip_change_nothing() -> None:
    data = batch()
    valid = data.valid.clone()
    valid[1, 2:] = False
    other = data.frames.clone()
    other[1, 4:] = 128
    losses = [trainer().step(Batch(frames, valid)).loss for frames in (data.frames, other)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("unit", ["set", "slot"])
def test_the_features_of_a_clip_are_the_mean_of_its_states_as_the_loss_compared_them(
    unit: str,
) -> None:
    learner, data = trainer(loss=LossConfig(unit=unit)), batch()  # type: ignore[arg-type]
    data.valid[1, 2:] = False  # the clip ends after its fourth frame
    with torch.no_grad():
        slots = learner.encode(learner.model, as_floats(data.frames)).slots
        predicted = learner.model.predict(slots)[data.valid]
        states = torch.cat([slots[0], slots[1, :4], slots[2]])
        forms = [
            [learner.model.summarise(kind) for kind in (predicted, states)]
            if unit == "set"
            else [predicted[:, k], states[:, k]]
            for k in range(1 if unit == "set" else slots.shape[2])
        ]
        taken = torch.cat([compared(*form, LossConfig())[1] for form in forms], dim=1)
    expected = [taken[:6].mean(0), taken[6:10].mean(0), taken[10:].mean(0)]
    features = learner.step(data).feedback.features
    assert features.dtype == np.float32
    assert features == pytest.approx(torch.stack(expected).numpy(), abs=1e-5)


@pytest.mark.parametrize("unit", ["set", "slot"])
@pytest.mark.parametrize("horizon", [1, 2])
def test_the_loss_of_a_clip_is_the_mean_of_its_predictions_one_step_ahead(
    unit: str, horizon: int
) -> None:
    config = LossConfig(unit=unit, horizon=horizon)  # type: ignore[arg-type]
    learner, data = trainer(loss=config), batch()
    data.valid[1, 2:] = False
    counts = data.valid.sum(1).numpy()
    at_once = trainer(loss=LossConfig(unit=unit)).step(data).loss  # type: ignore[arg-type]
    losses = learner.step(data).feedback.losses
    assert losses.dtype == np.float32
    assert losses.shape == counts.shape
    assert (losses * counts).sum() / counts.sum() == pytest.approx(at_once, rel=1e-5)
    assert len(set(losses.tolist())) == len(losses)


def test_a_weight_that_is_not_finite_is_named() -> None:
    learner = trainer()
    learner.check_finite()
    with torch.no_grad():
        learner.model.slot_attention.starts[0, 0] = math.inf
    with pytest.raises(Diverged, match=r"^step 0: slot_attention\.starts is not finite"):
        learner.check_finite()


@pytest.mark.parametrize("loss", [LossConfig(), LossConfig(unit="slot")])
def test_a_few_steps_on_one_batch_lower_its_loss(loss: LossConfig) -> None:
    learner, data = trainer(loss=loss, warmup_steps=1), batch()
    first = learner.step(data).loss
    for _ in range(60):
        last = learner.step(data).loss
    assert last < 0.8 * first


def test_the_learning_rate_warms_up_and_stays() -> None:
    learner = trainer(learning_rate=0.01, warmup_steps=4)
    rates = []
    for _ in range(6):
        rates.append(learner.learning_rate)
        learner.step(batch())
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


def test_the_untrained_model_stays_as_it_was() -> None:
    learner = trainer()
    before = {name: value.clone() for name, value in learner.untrained.state_dict().items()}
    learner.step(batch())
    assert all(torch.equal(before[n], v) for n, v in learner.untrained.state_dict().items())
    changed = learner.model.state_dict()
    assert any(not torch.equal(before[n], changed[n]) for n in before)


def test_a_loss_that_is_not_finite_leaves_the_weights_alone() -> None:
    learner, data = trainer(), batch()
    learner.step(data)
    next(learner.model.parameters()).detach().view(-1)[0] = math.nan
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    with pytest.raises(Diverged, match=r"^step 2: loss nan"):
        learner.step(data)
    assert learner.step_count == 1
    after = learner.model.state_dict()
    assert all(torch.equal(before[n].nan_to_num(), v.nan_to_num()) for n, v in after.items())


def test_an_orthogonal_step_goes_along_what_is_new_in_the_gradient() -> None:
    learner = trainer(orthogonal=0.9)
    learner.step(batch(seed=1))
    states = learner.optimizer.state
    before = {p: states[p]["past_gradient"].clone() for p in learner.model.parameters()}
    for parameter, past in before.items():
        assert parameter.grad is not None
        torch.testing.assert_close(past, 0.1 * parameter.grad)  # the first has no past
    learner.step(batch(seed=2))
    for parameter, past in before.items():
        assert parameter.grad is not None
        scale = parameter.grad.norm() * past.norm() + 1e-12
        assert abs(float((parameter.grad * past).sum() / scale)) < 1e-4
        raw = (states[parameter]["past_gradient"] - 0.9 * past) / 0.1
        taken = raw - parameter.grad
        if past.norm() > 0:
            along = past * (raw * past).sum() / past.square().sum()
            torch.testing.assert_close(taken, along, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("optimizer", [{"kind": "rmsprop"}, {"orthogonal": 0.9}])
def test_other_ways_of_stepping_learn_and_go_on_from_a_checkpoint(optimizer) -> None:
    whole, part = trainer(**optimizer), trainer(**optimizer)
    losses = [whole.step(batch(seed=seed)).loss for seed in range(6)]
    for seed in range(3):
        part.step(batch(seed=seed))
    resumed = trainer(seed=5, **optimizer)
    resumed.model.load_state_dict(part.model.state_dict())
    resumed.load_optimizer(part.optimizer.state_dict())
    resumed.step_count = 3
    assert [resumed.step(batch(seed=seed)).loss for seed in range(3, 6)] == losses[3:]
    for parameter in whole.model.parameters():
        assert "exp_avg" in whole.optimizer.state[parameter] or optimizer == {"kind": "rmsprop"}


def test_an_orthogonality_outside_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"orthogonal must be below 1, got 1\.0"):
        OptimizerConfig(orthogonal=1.0)


def test_the_running_mean_is_of_the_weights_after_each_step_and_does_not_touch_learning() -> None:
    alone, averaging = trainer(), trainer(average_steps=2)
    expected = {n: v.clone() for n, v in averaging.model.state_dict().items()}
    for step in range(1, 14):
        data = batch(seed=step)
        assert averaging.step(data).loss == alone.step(data).loss
        weight = max(0.5, 10 / (step + 9))
        for name, value in averaging.model.state_dict().items():
            if value.is_floating_point():
                expected[name] += weight * (value - expected[name])
    read = averaging.evaluated.state_dict()
    assert alone.evaluated is alone.model
    for name, value in averaging.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(read[name], expected[name])
        else:
            assert torch.equal(read[name], value)
    assert any(
        not torch.equal(read[name], value) for name, value in alone.model.state_dict().items()
    )
