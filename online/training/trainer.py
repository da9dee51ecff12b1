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
from online.training.batch import Batch, as_floats
from online.training.config import OptimizerConfig, TrainingConfig
from online.training.exchange import Exchange, Shared, share_statistics
from online.training.feedback import feedback_of
from online.training.models import arranged, layout, untrained_twin, uses_bfloat16, weight_dtype
from online.training.optimizer import (
    average_into,
    build_optimizer,
    learning_rate,
    load_moments,
    take_step,
)
from setcon.config import LossConfig
from setcon.cuda_graph import CudaGraphed
from setcon.encoders.timm_encoder import TimmEncoder
from setcon.frozen import learned_state
from setcon.matching import Matching
from setcon.model import SetCon, SetConOutput
from setcon.rows import loss_of_rows
from setcon.slots.foreground import IGNORED, foreground_targets
from setcon.slots.object_slots import prediction_loss
from setcon.supervoxels.supervoxels import Supervoxels

FOREGROUND_FRAMES = 16
"""About so many frames of a batch are learned from where objects are found, in each step."""
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
    foreground: float | None
    """Loss of the foreground, where slots start at objects."""
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
        exchange: Exchange | None = None,
    ) -> None:
        """With `exchange`, batches are shared with other processes, which take the same steps."""
        self.layout = layout(training)
        self.model = arranged(model, training, device)
        self.untrained = untrained_twin(self.model)
        self.exchange = exchange
        if exchange is not None:
            share_statistics(self.model)
        self.frame_stride = frame_stride
        self.loss_config = loss
        self.config = optimizer
        self.device = device
        self.bfloat16 = uses_bfloat16(training.precision, device)
        self.dtype = weight_dtype(training)
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
        return "bfloat16" if self.bfloat16 else str(self.dtype).removeprefix("torch.")

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
        images = self._images(frames)
        # only the encoder gains by bfloat16: in it, z would lose what distinguishes near frames
        with self._autocast():
            encoded = model.encode(
                images,
                run_length=frames.shape[1],
                pieces=pieces,
                outlines=False,
                maps=self._on_device(maps),
            )
        return model.of_slots(encoded, num_runs=len(frames), frame_stride=self.frame_stride)

    def attention(
        self, images: Float[Tensor, "n c h w"], *, pieces: Supervoxels | None = None
    ) -> Float[Tensor, "n k p"]:
        """Where the slots of single images look or, with `pieces`, those of one run of images."""
        with self._autocast():
            return self.evaluated.encode(
                self._images(images[None]),
                run_length=len(images),
                pieces=None if pieces is None else [pieces],
                outlines=False,
            ).attention

    def maps(self, images: UInt8[Tensor, "t h w 3"]) -> tuple[BFloat16[Tensor, "t _c _r _s"], ...]:
        """What the layers of a frozen encoder make of images, on the CPU."""
        assert isinstance(self.model.encoder, TimmEncoder)
        with torch.no_grad(), self._autocast():
            maps = self.model.encoder.maps(self._images(as_floats(images)[None]))
        return tuple(each.cpu() for each in maps)

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
            foreground = self._foreground_loss(
                frames, batch, batch.pieces, output, len(shared.valid)
            )
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
        pieces: Sequence[Supervoxels],
        output: SetConOutput,
        num_clips: int,
    ) -> Float[Tensor, ""]:
        """The loss of some frames of each clip, evenly spread: neighbours have little to add.

        `num_clips` are those of all processes.
        """
        assert output.foreground is not None
        trust = self.loss_config.foreground_trust if self.step_count >= TRUST_AFTER_STEPS else 0.0
        targets = [
            foreground_targets(piece, logits.view(piece.labels.shape), trust=trust)
            for piece, logits in zip(pieces, output.foreground.detach().cpu(), strict=True)
        ]
        t = frames.shape[1]
        lengths = t - batch.valid.shape[1] + batch.valid.sum(dim=1)
        for target, length in zip(targets, lengths.tolist(), strict=True):
            target[length:] = IGNORED  # a clip is filled up there
        apart = min(t, -(-t * num_clips // FOREGROUND_FRAMES))  # at least one of each clip
        chosen = slice(self.step_count % apart, None, apart)
        images = self._images(as_floats(frames[:, chosen]))
        truth = torch.stack(targets)[:, chosen].flatten(0, 1).flatten(1).to(self.device)
        maps = None if batch.maps is None else [each[:, chosen] for each in batch.maps]
        with self._autocast():
            return self.model.foreground_loss(
                images, truth, maps=self._on_device(maps), total=self._total
            )

    def _on_device(
        self, maps: Sequence[Float[Tensor, "b t _c _r _s"]] | None
    ) -> list[Float[Tensor, "n _c _r _s"]] | None:
        return None if maps is None else [each.flatten(0, 1).to(self.device) for each in maps]

    def _images(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "n c h w"]:
        images = frames.flatten(0, 1).to(self.device, self.dtype)
        return images.contiguous(memory_format=self.layout)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    @property
    def learning_rate(self) -> float:
        """Rate of the next step."""
        return learning_rate(self.config, steps_taken=self.step_count)
