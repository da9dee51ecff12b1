"""The learner: one optimizer step on a batch of clips.

Every frame of a batch is encoded once. With frame_stride s and clips of t frames,

    slots      s_0 ............ s_{t-1}                    "b t k d"
    predicted  p_{2s} ......... p_{t-1}   from s_{i-2s}, s_{i-s}   "b t-2s k d"

each p_i is matched with s_i against all states and all other predictions of the batch.
"""

from __future__ import annotations

import copy
import math
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from online.errors import ConfigError, Diverged, TrainingError
from online.training.batch import Batch, as_floats
from setcon.cuda_graph import Recorder
from setcon.loss import LossConfig
from setcon.model import Matching, SetCon, SetConConfig, SetConOutput, match

_PAST = "past_gradient"
MAX_THREADS = 1024
"""More are taken for a slip of the hand: starting them can end the process."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """A warm-up and then a constant rate: a stream has no end to anneal towards."""

    kind: Literal["adam", "rmsprop"] = "adam"
    """Adam, or RMSProp without momentum, as Carreira et al. 2024 (arXiv 2312.00598) propose for
    streams."""
    orthogonal: float = 0.0
    """Take from each gradient its part along those of the past (Han et al. 2025, arXiv 2504.01961):
    the decay of their running mean, such as 0.9; 0 leaves gradients alone."""
    learning_rate: float = 2e-3
    """Rate after the warm-up."""
    warmup_steps: int = 50
    """Steps over which the rate grows linearly from nearly zero."""
    weight_decay: float = 1e-6
    """L2 penalty, as in the paper."""
    clip_norm: float = 0.0
    """Gradients are scaled down to this norm; 0 leaves them alone."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}, it must be above 0")
        if not 0 <= self.orthogonal < 1:
            raise ValueError(
                f"orthogonal is {self.orthogonal}, it must lie in 0..1, 1 not included"
            )
        if min(self.warmup_steps, self.weight_decay, self.clip_norm) < 0:
            raise ValueError("warmup_steps, weight_decay and clip_norm cannot be below 0")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long to train, on what arithmetic, and how often to save and look."""

    seed: int = 0
    """Decides initial weights, the order of a shuffled stream and every draw from the replay."""
    steps: int = 100_000
    """Optimizer steps of the whole run."""
    batch_clips: int = 12
    """Clips in a batch."""
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """Arithmetic of encoder and slots; losses stay in float32. `auto` is bfloat16 where the
    device multiplies it natively."""
    channels_last: bool = True
    """Memory layout of images and convolutions; faster on CPUs and on tensor cores."""
    deterministic: bool = True
    """Refuse operations whose result differs between runs."""
    cuda_graphs: bool = True
    """On a GPU, replay recordings of steps and prequential scores, one launch for hundreds. A shape
    of batches, such as full clips, is recorded when it comes again, which takes the memory of a
    step once more. Probes are replayed in any case."""
    threads: int = 0
    """CPU threads for torch; 0 leaves its default."""
    log_every_steps: int = 10
    """One line of metrics.jsonl per this many steps."""
    checkpoint_every_seconds: float = 60.0
    """Wall time between checkpoints."""
    keep_checkpoints: int = 3
    """How many of the newest stay, beside the untrained one."""
    keep_segments: bool = False
    """Keep the weights of the end of each recording of the stream for ever, for `setcon eval
    --continual`."""
    prequential_candidates: int = 32
    """States, of clips seen before, that each prediction on new footage is compared with."""
    prequential_gap_seconds: float = 2.0
    """How far away in time those clips are at least."""

    def __post_init__(self) -> None:
        positive = (
            "steps",
            "batch_clips",
            "log_every_steps",
            "keep_checkpoints",
            "prequential_candidates",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.checkpoint_every_seconds <= 0:
            raise ValueError("checkpoint_every_seconds must be above 0")
        for name in ("seed", "prequential_gap_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, it cannot be below 0")
        if not 0 <= self.threads <= MAX_THREADS:
            raise ValueError(f"threads is {self.threads}, it must lie in 0..{MAX_THREADS}")


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """What a pass forward and back measured, still where it was computed."""

    numbers: Float[Tensor, " 5"]
    """What is minimised, the norm of its gradient, the contrast's loss, exclusivity, top-1: in one
    tensor, as each transfer waits for the GPU."""
    features: Float[Tensor, "b e"]
    chance: float


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """One optimizer step."""

    loss: float
    """Of the contrast, which is `chance` for a guess."""
    exclusivity: float
    """How much of what slots read is theirs alone."""
    top1: float
    """Share of predictions whose nearest candidate is their own state."""
    states: int
    """That each prediction chose from, beside the batch's other predictions."""
    chance: float
    """The loss of a guess among the candidates."""
    triplets: int
    grad_norm: float
    features: Float[np.ndarray, "b e"]
    """What the model made of each clip: the mean of its states in the form that the loss compared
    (by default standardised set encodings of unit length), which costs no encoding of its own."""


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
        self.layout = _layout(training)
        self.model = arranged(model, training, device)
        self.untrained = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.frame_stride = frame_stride
        self.loss_config = loss
        self.config = optimizer
        self.device = device
        self.bfloat16 = uses_bfloat16(training.precision, device)
        self.step_count = 0
        self.optimizer = _optimizer(self.model, optimizer)
        self._passes = Recorder(
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
                f"step {self.step_count + 1}: a batch of {triplets} triplet has nothing to be told "
                "apart from; the recording is too short to learn from"
            )
        self.model.train()
        self._set_learning_rate()
        num_frames, horizon = batch.frames.shape[1], self.loss_config.horizon
        matching = match(batch.valid, num_frames=num_frames, horizon=horizon)
        passed = self._passes(batch.frames, *matching.tensors())
        minimised, grad_norm, loss, exclusivity, top1 = passed.numbers.tolist()
        if not (math.isfinite(minimised) and math.isfinite(grad_norm)):
            raise Diverged(
                f"step {self.step_count + 1}: loss {minimised}, gradient norm {grad_norm}"
            )
        if self.config.orthogonal:
            self._orthogonal_step()
        else:
            self.optimizer.step()
        self.step_count += 1
        return StepResult(
            loss=loss,
            exclusivity=exclusivity,
            top1=top1,
            states=len(matching.states),
            chance=passed.chance,
            triplets=triplets,
            grad_norm=grad_norm,
            features=passed.features.cpu().numpy(),
        )

    def check_finite(self) -> None:
        """Raise Diverged if a parameter or buffer is not finite: the last update did it."""
        for name, value in self.model.state_dict().items():
            if not bool(value.isfinite().all()):
                raise Diverged(f"step {self.step_count}: {name} is not finite")

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Take up the moments of a checkpoint, in the memory layout that training gives them."""
        self.optimizer.load_state_dict(state)
        for parameter, entries in self.optimizer.state.items():
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # same sums in the same order as a run that never stopped
                    entries[name] = torch.empty_like(parameter).copy_(value)

    def encode(self, model: SetCon, frames: Float[Tensor, "b t c h w"]) -> SetConOutput:
        """What `model` makes of frames, in the arithmetic and memory layout of training."""
        images = frames.flatten(0, 1).to(self.device).contiguous(memory_format=self.layout)
        # only the encoder gains by bfloat16: in it, z would lose what tells near frames apart
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
        runs = matching.states // frames.shape[1]
        return _Pass(
            numbers=torch.stack([number.detach() for number in numbers]),
            features=_means(contrast.states.detach(), runs, len(frames)),
            chance=contrast.chance,
        )

    def _orthogonal_step(self) -> None:
        """Each parameter steps along what is new in its gradient g: g - c (g·c) / (c·c).

        c is the running mean of past gradients; it joins the optimizer's state, and so checkpoints.
        """
        state, decay = self.optimizer.state, self.config.orthogonal
        raw: list[tuple[Tensor, Tensor]] = []
        for parameter in self.model.parameters():
            if parameter.grad is None:
                continue
            gradient = parameter.grad.clone()
            raw.append((parameter, gradient))
            past = state[parameter].get(_PAST) if parameter in state else None
            if past is not None and (square := past.square().sum()) > 0:
                parameter.grad -= past * ((gradient * past).sum() / square)
        self.optimizer.step()
        for (
            parameter,
            gradient,
        ) in raw:  # not before: a state of its own is how it knows a first step
            past = state[parameter].setdefault(_PAST, torch.zeros_like(gradient))
            past.lerp_(gradient, 1 - decay)

    def _set_learning_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

    @property
    def learning_rate(self) -> float:
        """Rate of the next step."""
        warm = min(1.0, (self.step_count + 1) / max(1, self.config.warmup_steps))
        return self.config.learning_rate * warm


def _optimizer(model: SetCon, config: OptimizerConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.kind == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), lr=rate, weight_decay=decay)
    # fused, one call for all parameters: small models have many small ones
    return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay, fused=True)


def _means(
    states: Float[Tensor, "s e"], clips: Int[Tensor, " s"], num_clips: int
) -> Float[Tensor, "{num_clips} e"]:
    """Mean of the states of each clip, in float32."""
    # a product: index_add_ may wait for the GPU to see whether its indices are in range
    of_clip = (clips == torch.arange(num_clips, device=clips.device)[:, None]).float()
    return of_clip @ states.float() / of_clip.sum(dim=1, keepdim=True)


def untrained_model(config: SetConConfig, *, seed: int) -> SetCon:
    """The model that a run with this seed begins with; draws from torch's global generator.

    Raises ConfigError: it does not fit into memory.
    """
    torch.manual_seed(seed)
    try:
        return SetCon(config)
    except (MemoryError, RuntimeError) as error:  # torch says out of memory with a RuntimeError
        raise ConfigError(
            f"model: {_num_parameters(config)} parameters do not fit into memory; "
            "lower model.encoder.width, or sizes in model.slot_attention, model.transition or "
            "model.set_encoder"
        ) from error


def default_device() -> torch.device:
    """A CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def arranged(model: SetCon, config: TrainingConfig, device: torch.device) -> SetCon:
    """`model` on `device`, its weights in the memory layout of training."""
    return model.to(device=device, memory_format=_layout(config))  # type: ignore[call-overload]


def _layout(config: TrainingConfig) -> torch.memory_format:
    return torch.channels_last if config.channels_last else torch.contiguous_format


def _num_parameters(config: SetConConfig) -> str:
    try:
        with torch.device("meta"):  # shapes without memory
            return f"{sum(p.numel() for p in SetCon(config).parameters()):,}"
    except RuntimeError:
        return "more than 2**63"


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether `precision` means bfloat16 on this device."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def set_determinism(config: TrainingConfig) -> None:
    """Make torch, in this process, as repeatable as `config` asks; before any CUDA call."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS refuses
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic)
    # else each tensor is filled before it is written, which takes up to a twentieth of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
