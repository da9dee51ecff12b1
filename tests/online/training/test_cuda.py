"""What is done otherwise on a GPU comes to the same; these need one, and are skipped without."""

from collections.abc import Iterator
from dataclasses import astuple

import numpy as np
import pytest
import torch

from online.clips.clip import ClipConfig
from online.training.batch import Batch
from online.training.config import OptimizerConfig, TrainingConfig
from online.training.models import set_determinism
from online.training.prequential import Prequential
from online.training.trainer import StepResult, Trainer
from setcon.config import (
    DecoderConfig,
    DecoderKind,
    EncoderConfig,
    LossConfig,
    ProbeConfig,
    SetConConfig,
)
from setcon.cuda_graph import MAX_GRAPHS
from setcon.model import SetCon
from setcon.probe import fit_probe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CONFIG = SetConConfig(encoder=EncoderConfig(normalisation="batch"))


def batches() -> list[Batch]:
    """Five layouts by turns, the fifth of which comes too late to be recorded."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for lacking in (0, 0, 1, 0, 1, 0, 1, 2, 2, 0, 3, 3, 4, 4, 0, 4, 1):
        frames = torch.randint(256, (4, 8, 8, 8, 3), generator=generator, dtype=torch.uint8)
        valid = torch.ones(4, 6, dtype=torch.bool)
        valid[len(found) % 4, 6 - lacking :] = False
        found.append(Batch(frames, valid))
    return found


def learn(loss: LossConfig, optimizer: OptimizerConfig, **training: object) -> tuple[Trainer, list]:
    torch.manual_seed(0)
    learner = Trainer(
        SetCon(CONFIG),
        frame_stride=1,
        loss=loss,
        optimizer=optimizer,
        training=TrainingConfig(**training),  # type: ignore[arg-type]
        device=torch.device("cuda"),
    )
    return learner, [learner.step(batch) for batch in batches()]


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """Else one kernel and another differ by themselves."""
    set_determinism(TrainingConfig())
    yield
    torch.use_deterministic_algorithms(False)


def told(result: StepResult) -> tuple[float, ...]:
    return (result.loss, result.grad_norm, result.top1, result.exclusivity, result.chance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 1e-2)])
@pytest.mark.parametrize(
    "optimizer",
    [OptimizerConfig(), OptimizerConfig(orthogonal=0.9), OptimizerConfig(clip_norm=0.1)],
    ids=["adam", "orthogonal", "clipped"],
)
@pytest.mark.parametrize(
    "loss",
    [LossConfig(), LossConfig(unit="slot"), LossConfig(horizon=3, exclusivity=0.5)],
    ids=["set", "slot", "further"],
)
def test_recorded_steps_are_those_taken_one_kernel_at_a_time(
    precision: str, tolerance: float, optimizer: OptimizerConfig, loss: LossConfig
) -> None:
    eager, expected = learn(loss, optimizer, precision=precision, cuda_graphs=False)
    graphed, found = learn(loss, optimizer, precision=precision)
    assert (graphed.num_graphs, eager.num_graphs) == (MAX_GRAPHS, 0)
    for one, other in zip(found, expected, strict=True):
        assert told(one) == pytest.approx(told(other), rel=tolerance, abs=tolerance)
        for name in ("features", "losses"):
            ours, theirs = getattr(one.feedback, name), getattr(other.feedback, name)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=10 * tolerance)
    for name, value in eager.model.state_dict().items():
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(graphed.model.state_dict()[name], value, **close)


def test_recorded_scores_are_those_of_the_weights_as_they_are_now() -> None:
    generator = torch.Generator().manual_seed(1)
    clips, far = torch.rand(4, 6, 3, 8, 8, generator=generator), torch.rand(3, 5, 3, 8, 8)
    scores = []
    for recorded in (False, True):
        learner, _ = learn(LossConfig(), OptimizerConfig(), precision="float32")
        config = TrainingConfig(cuda_graphs=recorded)
        prequential = Prequential(learner, config, ClipConfig(clip_length=4))
        found = []
        for clip, batch in zip(clips, batches(), strict=False):
            found.append(astuple(prequential.score_against(clip, far)))
            learner.step(batch)
        scores.append(found)
        assert prequential.num_graphs == recorded
    for one, other in zip(*scores, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", ["bilinear", "broadcast"])
def test_a_probe_is_about_the_one_that_a_cpu_fits(kind: DecoderKind) -> None:
    generator = torch.Generator().manual_seed(0)
    slots = torch.randn(64, 3, 6, generator=generator)
    images = torch.randint(256, (64, 8, 8, 3), generator=generator, dtype=torch.uint8)
    config = ProbeConfig(steps=60, decoder=DecoderConfig(kind=kind, hidden_size=16))
    losses = [fit_probe(slots.to(device), images, config).train_mse for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
