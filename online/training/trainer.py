"""The learner: one optimizer step on a batch of clips.

Every frame of a batch is encoded once. With frame_stride s and clips of t frames,

    slots      s_0 ............ s_{t-1}                    "b t k d"
    predicted  p_{2s} ......... p_{t-1}   from s_{i-2s}, s_{i-s}   "b t-2s k d"

each p_i is matched with s_i against all states and all other predictions of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from online.errors import Diverged, TrainingError
from online.replay.long_term import Feedback
from online.training.batch import Batch, as_floats
from online.training.config import OptimizerConfig, TrainingConfig
from online.training.models import arranged, layout, untrained_twin, uses_bfloat16
from online.training.optimizer import build_optimizer, learning_rate, load_moments, take_step
from setcon.config import LossConfig
from setcon.cuda_graph import CudaGraphed
from setcon.frozen import learned_state
from setcon.model import Matching, SetCon, SetConOutput, match


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """What a pass forward and back measured, still where it was computed."""

    numbers: Float[Tensor, " 5"]
    """What is minimised, the norm of its gradient, the contrast's loss, exclusivity, top-1: in one
    tensor, as each transfer waits for the GPU."""
    feedback: Float[Tensor, "b columns"]
    """For each clip its features and, in the last column, its loss."""
    chance: float


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """One optimizer step."""

    loss: float
    """Loss of the contrast, which is `chance` for a guess."""
    exclusivity: float
    """How much of what slots read is theirs alone."""
    top1: float
    """Share of predictions whose nearest candidate is their own state."""
    states: int
    """That each prediction chose from, next to the batch's other predictions."""
    chance: float
    """The loss of a guess among the candidates."""
    triplets: int
    grad_norm: float
    feedback: Feedback
    """What it found out about each clip."""


class Trainer:
    """SetCon, its optimizer, and the model as it was before the first step."""

    def __init__(
        self,
        model: SetCon,
        *,
        frame_stride: int,
        loss: LossConfig,
        optimizer: OptimizerConfig,
        training: TrainingConfig,
        device: torch.device,
    ) -> None:
        self.layout = layout(training)
        self.model = arranged(model, training, device)
        self.untrained = untrained_twin(self.model)
        self.frame_stride = frame_stride
        self.loss_config = loss
        self.config = optimizer
        self.device = device
        self.bfloat16 = uses_bfloat16(training.precision, device)
        self.step_count = 0
        self.optimizer = build_optimizer(self.model.parameters(), optimizer)
        self._passes = CudaGraphed(
            self.model, self._forward_and_backward, enabled=training.cuda_graphs
        )

    def step(self, batch: Batch) -> StepResult:
        """Learn from one batch.

        Raises TrainingError: the batch is too small; Diverged: the loss or the gradient is not
        finite; the parameters are left as they were before the step.
        """
        triplets = int(batch.valid.sum())
        if triplets < 2:
            raise TrainingError(
                f"step {self.step_count + 1}: a batch of {triplets} triplet has nothing to be "
                "distinguished from; the recording is too short to learn from"
            )
        self.model.train()
        num_frames, horizon = batch.frames.shape[1], self.loss_config.horizon
        matching = match(batch.valid, num_frames=num_frames, horizon=horizon)
        passed = self._passes(batch.frames, *matching.tensors())
        minimised, grad_norm, loss, exclusivity, top1 = passed.numbers.tolist()
        if not (math.isfinite(minimised) and math.isfinite(grad_norm)):
            raise Diverged(
                f"step {self.step_count + 1}: loss {minimised}, gradient norm {grad_norm}"
            )
        feedback = passed.feedback.cpu().numpy()
        take_step(self.optimizer, rate=self.learning_rate, orthogonal=self.config.orthogonal)
        self.step_count += 1
        return StepResult(
            loss=loss,
            exclusivity=exclusivity,
            top1=top1,
            states=len(matching.states),
            chance=passed.chance,
            triplets=triplets,
            grad_norm=grad_norm,
            feedback=Feedback(features=feedback[:, :-1], losses=feedback[:, -1]),
        )

    def check_finite(self) -> None:
        """Raise Diverged if a parameter or buffer is not finite: the last update did it."""
        for name, value in learned_state(self.model).items():
            if not bool(value.isfinite().all()):
                raise Diverged(f"step {self.step_count}: {name} is not finite")

    @property
    def num_graphs(self) -> int:
        """Shapes of batches that are stepped by a CUDA graph."""
        return self._passes.num_graphs

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Take up the moments of a checkpoint."""
        load_moments(self.optimizer, state)

    def encode(self, model: SetCon, frames: Float[Tensor, "b t c h w"]) -> SetConOutput:
        """What `model` makes of frames, in the arithmetic and memory layout of training."""
        images = frames.flatten(0, 1).to(self.device).contiguous(memory_format=self.layout)
        # only the encoder gains by bfloat16: in it, z would lose what distinguishes near frames
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            encoded = model.encode(images)
        slots = encoded.slots.float().unflatten(0, frames.shape[:2])
        return SetConOutput(
            slots=slots,
            predicted=model.predict(slots, frame_stride=self.frame_stride),
            attention=encoded.attention.unflatten(0, frames.shape[:2]),
        )

    def _forward_and_backward(
        self, frames: UInt8[Tensor, "b t h w 3"], *matched: Int[Tensor, " _n"]
    ) -> _Pass:
        matching = Matching.of(*matched)
        output = self.encode(self.model, as_floats(frames))
        result = self.model.loss(output, self.loss_config, matching=matching)
        result.loss.backward()
        limit = self.config.clip_norm or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        contrast = result.contrast
        numbers = (result.loss, grad_norm, contrast.loss, result.exclusivity, contrast.top1)
        b, t, stride = *frames.shape[:2], self.frame_stride
        predictions = matching.ahead[0].predictions
        features = _means(contrast.states.detach(), matching.states // t, b)
        losses = _means(contrast.each[:, None], predictions // (t - 2 * stride), b)
        return _Pass(
            numbers=torch.stack([number.detach() for number in numbers]),
            feedback=torch.cat([features, losses], dim=1),
            chance=contrast.chance,
        )

    @property
    def learning_rate(self) -> float:
        """Rate of the next step."""
        return learning_rate(self.config, steps_taken=self.step_count)


def _means(
    values: Float[Tensor, "s e"], clips: Int[Tensor, " s"], num_clips: int
) -> Float[Tensor, "{num_clips} e"]:
    """Mean of the values of each clip, in float32."""
    # a product: index_add_ may wait for the GPU to see whether its indices are in range
    of_clip = (clips == torch.arange(num_clips, device=clips.device)[:, None]).float()
    return of_clip @ values.float() / of_clip.sum(dim=1, keepdim=True)
