"""The learner: one optimizer step on a batch of clips.

Every frame of a batch is encoded once. With frame_stride s and clips of t frames,

    slots      s_0 ............ s_{t-1}                    "b t k d"
    predicted  p_{2s} ......... p_{t-1}   from s_{i-2s}, s_{i-s}   "b t-2s k d"

each p_i is matched with s_i against all states and all other predictions of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import BFloat16, Float, Int, UInt8
from torch import Tensor

from online.errors import Diverged, TrainingError
from online.replay.long_term import Feedback
from online.training.arithmetic import Arithmetic
from online.training.batch import Batch, as_floats
from online.training.config import OptimizerConfig, TrainingConfig
from online.training.exchange import Exchange, Shared, share_statistics
from online.training.feedback import feedback_of
from online.training.foreground import chosen_frames
from online.training.models import arranged, untrained_twin
from online.training.optimizer import (
    average_into,
    build_optimizer,
    learning_rate,
    load_moments,
    take_step,
)
from online.training.result import StepResult
from setcon.config import LossConfig
from setcon.cuda_graph import CudaGraphed
from setcon.frozen import learned_state
from setcon.matching import Matching
from setcon.model import SetCon, SetConOutput
from setcon.rows import loss_of_rows
from setcon.slots.object_slots import prediction_loss
from setcon.supervoxels.supervoxels import Supervoxels

TRUST_AFTER_STEPS = 200
"""From then on what is thought of a piece counts as evidence; before, it is a guess."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """What a pass forward and back measured, still where it was computed."""

    numbers: Float[Tensor, " 6"]
    """What is minimised, the norm of its gradient, the contrast's loss, exclusivity, top-1, the
    foreground's loss: in one tensor, as each transfer waits for the GPU."""
    feedback: Float[Tensor, "b columns"]
    """For each clip its features and, in the last column, its loss."""
    chance: float
    states: int


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
        exchange: Exchange | None = None,
    ) -> None:
        """With `exchange`, batches are shared with other processes, which take the same steps."""
        self._arithmetic = Arithmetic.of(training, device)
        self.model = arranged(model, training, device)
        self.untrained = untrained_twin(self.model)
        self.exchange = exchange
        if exchange is not None:
            share_statistics(self.model)
        self.frame_stride = frame_stride
        self.loss_config = loss
        self.config = optimizer
        self.device = device
        self.step_count = 0
        self.mean = untrained_twin(self.model) if optimizer.average_steps else None
        self.optimizer = build_optimizer(self.model.parameters(), optimizer)
        self._passes = CudaGraphed(
            self.model, self._forward_and_backward, enabled=training.cuda_graphs
        )

    def step(self, batch: Batch, *, lengths: Sequence[Sequence[int]] = ()) -> StepResult:
        """Learn from one batch.

        Where it is shared, `lengths` are the frames of each clip of each process; all of them are
        filled up to the longest.

        Raises TrainingError: the batch is too small; Diverged: the loss or the gradient is not
        finite; the parameters are left as they were before the step. Where one process that
        shares the batch raises one of them, all do.
        """
        shared = self._shared(batch, lengths)
        triplets = int(shared.valid.sum())
        if triplets < 2:
            raise TrainingError(
                f"step {self.step_count + 1}: a batch of {triplets} triplet has nothing to be "
                "distinguished from; the recording is too short to learn from"
            )
        self.model.train()
        passed = self._pass(batch, shared)
        minimised, grad_norm, loss, exclusivity, top1, foreground = passed.numbers.tolist()
        if not (math.isfinite(minimised) and math.isfinite(grad_norm)):
            raise Diverged(
                f"step {self.step_count + 1}: loss {minimised}, gradient norm {grad_norm}"
            )
        feedback = passed.feedback.cpu().numpy()
        take_step(self.optimizer, rate=self.learning_rate, orthogonal=self.config.orthogonal)
        self.step_count += 1
        if self.mean is not None:
            average_into(
                self.mean,
                self.model,
                steps_taken=self.step_count,
                average_steps=self.config.average_steps,
            )
        return StepResult(
            loss=loss,
            exclusivity=exclusivity,
            top1=top1,
            states=passed.states,
            chance=passed.chance,
            triplets=triplets,
            grad_norm=grad_norm,
            foreground=foreground if self.model.config.finds_objects else None,
            feedback=Feedback(features=feedback[:, :-1], losses=feedback[:, -1]),
        )

    def check_finite(self) -> None:
        """Raise Diverged if a parameter or buffer is not finite: the last update did it."""
        for name, value in learned_state(self.model).items():
            if not bool(value.isfinite().all()):
                raise Diverged(f"step {self.step_count}: {name} is not finite")

    @property
    def evaluated(self) -> SetCon:
        """The model that everything but training reads: the mean, or else the one that learns."""
        return self.model if self.mean is None else self.mean

    @property
    def precision(self) -> str:
        """Arithmetic of encoder and slots."""
        return self._arithmetic.precision

    @property
    def num_graphs(self) -> int:
        """Shapes of batches that are stepped by a CUDA graph."""
        return self._passes.num_graphs

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Take up the moments of a checkpoint."""
        load_moments(self.optimizer, state)

    def encode(
        self,
        model: SetCon,
        frames: Float[Tensor, "b t c h w"],
        *,
        pieces: Sequence[Supervoxels] | None = None,
        maps: Sequence[Float[Tensor, "b t _c _r _s"]] | None = None,
    ) -> SetConOutput:
        """What `model` makes of frames, in the arithmetic and memory layout of training.

        `pieces` and `maps` are those of `SetCon.encode`.
        """
        # only the encoder gains by bfloat16: in it, z would lose what distinguishes near frames
        encoded = self._arithmetic.encode(model, frames, pieces=pieces, outlines=False, maps=maps)
        return model.of_slots(encoded, num_runs=len(frames), frame_stride=self.frame_stride)

    def attention(
        self, images: Float[Tensor, "n c h w"], *, pieces: Supervoxels | None = None
    ) -> Float[Tensor, "n k p"]:
        """Where the slots of single images look or, with `pieces`, those of one run of images."""
        one = None if pieces is None else [pieces]
        return self._arithmetic.encode(self.evaluated, images[None], pieces=one).attention

    def maps(self, images: UInt8[Tensor, "t h w 3"]) -> tuple[BFloat16[Tensor, "t _c _r _s"], ...]:
        """What the layers of a frozen encoder make of images, on the CPU."""
        return self._arithmetic.maps(self.model, images)

    def _shared(self, batch: Batch, lengths: Sequence[Sequence[int]]) -> Shared:
        if self.exchange is None:
            return Shared(batch.valid, (range(len(batch.valid)),), rank=0)
        return Shared.of(lengths, rank=self.exchange.rank, overlap=2 * self.frame_stride)

    def _pass(self, batch: Batch, shared: Shared) -> _Pass:
        assert (batch.pieces is not None) == self.model.config.finds_objects
        num_frames, horizon = batch.frames.shape[1], self.loss_config.horizon
        parts = shared.parts(num_frames=num_frames, horizon=horizon)
        if self.exchange is None and batch.pieces is None and batch.maps is None:
            return self._passes(batch.frames, *parts[0].tensors())
        parts = [
            Matching.of(*(tensor.to(self.device) for tensor in part.tensors())) for part in parts
        ]
        self.model.zero_grad(set_to_none=True)
        frames = batch.frames.to(self.device)
        output = self.encode(self.model, as_floats(frames), pieces=batch.pieces, maps=batch.maps)
        foreground = added = output.slots.new_zeros(())
        if batch.pieces is not None:
            foreground = self._foreground_loss(frames, batch, output, len(shared.valid))
            held = output.attention.sum(dim=-1) > 0
            valid = batch.valid.to(self.device)
            predicted = prediction_loss(
                output.slots, output.predicted, held, valid, total=self._total
            )
            weights = self.loss_config
            added = weights.foreground * foreground + weights.prediction * predicted
        return self._backward(output, parts, shared.rank, added, foreground)

    def _forward_and_backward(
        self, frames: UInt8[Tensor, "b t h w 3"], *matched: Int[Tensor, " _n"]
    ) -> _Pass:
        output = self.encode(self.model, as_floats(frames))
        none = output.slots.new_zeros(())
        return self._backward(output, [Matching.of(*matched)], 0, none, none)

    def _backward(
        self,
        output: SetConOutput,
        parts: Sequence[Matching],
        rank: int,
        added: Float[Tensor, ""],
        foreground: Float[Tensor, ""],
    ) -> _Pass:
        """`added` is what is minimised besides the model's loss, of this process alone."""
        own = parts[rank]
        rows = self.model.rows(output, self.loss_config, own)
        if self.exchange is not None:
            rows = self.exchange.rows(rows, parts)
        result = loss_of_rows(rows, self.loss_config)
        (result.loss + added).backward()
        if self.exchange is not None:
            self.exchange.sum_gradients(self.model.parameters())
        limit = self.config.clip_norm or math.inf
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        contrast = result.contrast
        numbers = (
            *(result.loss + self._total(added), grad_norm),
            *(contrast.loss, result.exclusivity, contrast.top1, self._total(foreground)),
        )
        return _Pass(
            numbers=torch.stack([number.detach() for number in numbers]),
            feedback=feedback_of(output, result.contrast, parts, rank),
            chance=contrast.chance,
            states=len(rows.states),
        )

    def _total(self, number: Tensor) -> Tensor:
        return number if self.exchange is None else self.exchange.total(number)

    def _foreground_loss(
        self,
        frames: UInt8[Tensor, "b t h w 3"],
        batch: Batch,
        output: SetConOutput,
        num_clips: int,
    ) -> Float[Tensor, ""]:
        """`num_clips` are those of all processes."""
        trusts = self.step_count >= TRUST_AFTER_STEPS
        chosen = chosen_frames(
            frames,
            batch,
            output,
            trust=self.loss_config.foreground_trust if trusts else 0.0,
            num_clips=num_clips,
            turn=self.step_count,
        )
        truth = chosen.truth.to(self.device)
        return self._arithmetic.foreground_loss(
            self.model, chosen.frames, truth, maps=chosen.maps, total=self._total
        )

    @property
    def learning_rate(self) -> float:
        """Rate of the next step."""
        return learning_rate(self.config, steps_taken=self.step_count)
