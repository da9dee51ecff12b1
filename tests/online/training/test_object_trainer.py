"""Steps of a model whose slots start at objects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving_squares import RED, Square, by_cell, scene

from online.clips.clip import ClipConfig
from online.training.batch import Batch, as_floats
from online.training.config import OptimizerConfig, TrainingConfig
from online.training.prequential import Prequential
from online.training.trainer import StepResult, Trainer
from setcon.config import EncoderConfig, LossConfig, SetConConfig, SlotAttentionConfig
from setcon.model import SetCon
from setcon.slots.foreground import IGNORED, foreground_loss, foreground_targets
from setcon.supervoxels.supervoxels import Supervoxels


def trainer(*, threshold: float = 0.6, **loss: float) -> Trainer:
    torch.manual_seed(0)
    model = SetCon(
        SetConConfig(
            encoder=EncoderConfig(kind="dilated", width=8, normalisation="group"),
            slot_attention=SlotAttentionConfig(
                starts="objects",
                num_slots=4,
                slot_size=8,
                hidden_size=16,
                foreground_threshold=threshold,
            ),
        )
    )
    return Trainer(
        model,
        frame_stride=1,
        loss=LossConfig(**loss),  # type: ignore[arg-type]
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=1),
        training=TrainingConfig(precision="float32"),
        device=torch.device("cpu"),
    )


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Three clips of a red square that crosses a grey background."""
    clips = [
        scene(
            [Square(side=12, start=(6 * i, 2), velocity=(0, 2), colour=RED)],
            num_frames=6,
            size=(32, 32),
            seed=i,
        )[0]
        for i in range(3)
    ]
    return Batch(
        torch.stack(clips),
        torch.ones(3, 4, dtype=torch.bool),
        tuple(Supervoxels.of(clip) for clip in clips),
    )


def test_steps_lower_the_foregrounds_loss_and_find_the_square(batch: Batch) -> None:
    learner = trainer()
    results = [learner.step(batch) for _ in range(40)]
    foreground = [result.foreground for result in results]
    assert all(each is not None and 0 < each < 2 for each in foreground)
    assert foreground[-1] < 0.5 * foreground[0]
    assert all(torch.tensor([r.loss, r.grad_norm]).isfinite().all() for r in results)
    learner.check_finite()
    frames, labels = scene(
        [Square(side=12, start=(9, 4), velocity=(0, 2), colour=RED)],
        num_frames=6,
        size=(32, 32),
        seed=9,
    )
    with torch.no_grad():
        found = learner.model.encode(frames.float().div(255).movedim(-1, 1), run_length=6)
    share = by_cell(labels > 0).flatten(1)
    likely = found.foreground.sigmoid()
    assert likely[share == 1].mean() > likely[share == 0].mean() + 0.4


def test_the_same_steps_give_the_same_numbers(batch: Batch) -> None:
    def run() -> tuple[list[StepResult], dict[str, torch.Tensor]]:
        learner = trainer(prediction=1.0, threshold=0.4)
        return [learner.step(batch) for _ in range(4)], learner.model.state_dict()

    (first, weights), (again, same) = run(), run()
    for one, other in zip(first, again, strict=True):
        for name in ("loss", "exclusivity", "top1", "grad_norm", "foreground"):
            assert getattr(one, name) == getattr(other, name)
        np.testing.assert_array_equal(one.feedback.losses, other.feedback.losses)
        np.testing.assert_array_equal(one.feedback.features, other.feedback.features)
    assert all(torch.equal(value, same[name]) for name, value in weights.items())


def test_the_foreground_is_learned_from_some_frames_of_each_clip(batch: Batch) -> None:
    learner = trainer()
    clips, pieces = [*batch.frames] * 2, [*batch.pieces] * 2
    data = Batch(torch.stack(clips), batch.valid.repeat(2, 1), tuple(pieces))
    for step in range(2):  # 36 frames, of which every third counts
        twin = trainer()
        twin.model.load_state_dict(learner.model.state_dict())
        targets = torch.stack(
            [foreground_targets(p, torch.zeros(6, 8, 8), trust=0.0) for p in pieces]
        )
        assert (targets != IGNORED).any()
        some = slice(step, None, 3)
        images = as_floats(data.frames[:, some]).flatten(0, 1)
        truth = targets[:, some].flatten(0, 1).flatten(1)
        expected = foreground_loss(
            twin.model.slot_attention.foreground(twin.model.encoder(images)).squeeze(-1), truth
        )
        assert learner.step(data).foreground == pytest.approx(expected.item(), rel=1e-5)


def test_of_many_short_clips_a_later_step_learns_the_foreground(batch: Batch) -> None:
    learner, many = trainer(), 20
    data = Batch(
        batch.frames[:1, :3].expand(many, -1, -1, -1, -1).contiguous(),
        torch.ones(many, 1, dtype=torch.bool),
        (Supervoxels.of(batch.frames[0, :3]),) * many,
    )
    learner.step_count = 3
    assert learner.step(data).foreground > 0.01


@pytest.mark.parametrize(("name", "weight"), [("foreground", 0.5), ("prediction", 2.0)])
def test_what_is_minimised_is_weighed(batch: Batch, name: str, weight: float) -> None:
    def gradients(**loss: float) -> torch.Tensor:
        learner = trainer(threshold=0.4, foreground=loss.pop("foreground", 0.0), **loss)
        learner.config = replace(learner.config, clip_norm=0.0)
        learner.step(batch)
        return torch.cat(
            [
                torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                for p in learner.model.parameters()
            ]
        )

    contrast = gradients()
    once, weighed = gradients(**{name: 1.0}), gradients(**{name: weight})
    assert (once - contrast).abs().max() > 1e-4
    torch.testing.assert_close(weighed - contrast, weight * (once - contrast), atol=1e-4, rtol=1e-3)


def test_new_clips_are_scored_before_they_are_learned_from(batch: Batch) -> None:
    learner = trainer(threshold=0.4)
    scored = Prequential(learner, TrainingConfig(precision="float32"), ClipConfig())
    images = as_floats(batch.frames)
    score = scored.score_against(images[0], images[1:])
    assert score.candidates == 8
    assert (score.loss, score.top1) == (score.loss_untrained, score.top1_untrained)
    learner.step(batch)
    after = scored.score_against(images[0], images[1:])
    assert after.loss != score.loss
    assert after.loss_untrained == score.loss_untrained
