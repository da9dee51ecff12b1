import math

import pytest
import torch

from online.batch import Batch
from online.errors import ConfigError, TrainingError
from online.trainer import (
    CollapseAlarm,
    OptimizerConfig,
    StepResult,
    Trainer,
    TrainingConfig,
    untrained_model,
    uses_bfloat16,
)
from setcon.loss import LossConfig, contrastive_loss
from setcon.model import SetCon, SetConConfig
from setcon.slot_attention import SlotAttentionConfig

CPU = torch.device("cpu")


def trainer(
    *, seed: int = 0, frame_stride: int = 1, loss: LossConfig | None = None, **optimizer: float
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
    frames = torch.rand(b, t, 3, 8, 8, generator=generator)
    return Batch(frames, torch.ones(b, t - span, dtype=torch.bool))


def test_a_step_has_the_loss_of_the_model_written_out() -> None:
    learner, data = trainer(), batch()
    slots = learner.model.encode(data.frames.flatten(0, 1)).slots.unflatten(0, (3, 6))
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
    assert (result.states, result.triplets, result.candidates) == (18, 12, 29)


def test_frames_that_fill_up_a_clip_change_nothing() -> None:
    data = batch()
    valid = data.valid.clone()
    valid[1, 2:] = False
    other = data.frames.clone()
    other[1, 4:] = 0.5
    losses = [trainer().step(Batch(frames, valid)).loss for frames in (data.frames, other)]
    assert losses[0] == losses[1]


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
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    data.frames[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"^step 2: loss nan"):
        learner.step(data)
    assert learner.step_count == 1
    assert all(torch.equal(before[n], v) for n, v in learner.model.state_dict().items())


def test_a_loss_at_chance_sets_off_the_alarm_once() -> None:
    alarm = CollapseAlarm()
    stuck = StepResult(
        loss=math.log(144), top1=0.01, candidates=263, states=144, triplets=120, grad_norm=1.0
    )
    messages = [alarm.update(stuck) for _ in range(400)]
    assert [i for i, m in enumerate(messages) if m] == [CollapseAlarm.patience_steps - 1]
    learning = StepResult(
        loss=math.log(144), top1=0.5, candidates=263, states=144, triplets=120, grad_norm=1.0
    )
    assert alarm.update(learning) is None
    assert alarm.steps_at_chance == 0


def test_precision_is_taken_at_its_word() -> None:
    assert uses_bfloat16("bfloat16", CPU)
    assert not uses_bfloat16("float32", CPU)


@pytest.mark.parametrize(
    ("num_slots", "count"), [(10**13, r"160,000,000,\d{3},\d{3}"), (2**62, r"more than 2\*\*63")]
)
def test_a_model_that_does_not_fit_into_memory_is_one_clear_line(
    num_slots: int, count: str
) -> None:
    config = SetConConfig(slot_attention=SlotAttentionConfig(num_slots=num_slots))
    with pytest.raises(ConfigError, match=rf"^model: {count} parameters do not fit [^\n]*$"):
        untrained_model(config, seed=0)
