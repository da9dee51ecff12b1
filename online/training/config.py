"""Settings of the learner; importing them does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from setcon.checks import check_above, check_at_least, check_below, check_within

Precision = Literal["float32", "bfloat16", "float64", "auto"]

MAX_THREADS = 1024
"""More are refused as a typing error: starting them can kill the process."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """A warm-up and then a constant rate: a stream has no end to anneal towards."""

    kind: Literal["adam", "rmsprop"] = "adam"
    """Adam, or RMSProp without momentum, as Carreira et al. 2024 (arXiv 2312.00598) propose for
    streams."""
    orthogonal: float = 0.0
    """Remove from each gradient its part along past gradients (Han et al. 2025, arXiv 2504.01961):
    the decay of their running mean, such as 0.9; 0 leaves gradients alone."""
    learning_rate: float = 2e-3
    """Learning rate after the warm-up."""
    warmup_steps: int = 50
    """Steps over which the learning rate grows linearly from nearly zero."""
    weight_decay: float = 1e-6
    """L2 penalty, as in the paper."""
    clip_norm: float = 0.0
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    average_steps: int = 0
    """Probes, pictures, scores and files read a running mean of the weights over about this many
    steps, or a tenth of the steps taken where those are fewer; 0 reads the newest weights."""

    def __post_init__(self) -> None:
        check_above(0, learning_rate=self.learning_rate)
        check_at_least(0, orthogonal=self.orthogonal, warmup_steps=self.warmup_steps)
        check_at_least(0, average_steps=self.average_steps)
        check_below(1, orthogonal=self.orthogonal)
        check_at_least(0, weight_decay=self.weight_decay, clip_norm=self.clip_norm)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long to train, in which arithmetic, and how often to log and save."""

    seed: int = 0
    """Decides initial weights, the order of a shuffled stream and every draw from the replay."""
    steps: int = 100_000
    """Optimizer steps of the whole run."""
    batch_clips: int = 12
    """Clips in a batch."""
    shards: int = 1
    """Parts of the footage and of the batch that have a replay of their own: at most so many
    processes can learn the run together (`setcon train --ranks`). What is learned depends on it,
    and not on the number of processes."""
    precision: Precision = "auto"
    """Arithmetic of encoder and slots; losses stay in float32. `auto` is bfloat16 on GPUs
    that multiply it natively, and float32 on CPUs: there a short run in bfloat16 found fewer
    objects. `float64` is for comparing runs: with it the losses are in float64, too."""
    channels_last: bool = True
    """Memory layout of images and convolutions; faster on CPUs and on tensor cores."""
    deterministic: bool = True
    """Refuse operations whose result differs between runs."""
    cuda_graphs: bool = True
    """On a GPU, replay steps and prequential scores as CUDA graphs: one launch instead of hundreds.
    A batch shape, such as full clips, is captured when it comes a second time, which takes the
    memory of another step. Probes always use graphs."""
    threads: int = 0
    """CPU threads for torch; 0 leaves its default."""
    log_every_steps: int = 10
    """One line of metrics.jsonl per this many steps."""
    checkpoint_every_seconds: float = 60.0
    """Wall time between checkpoints."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints are kept, in addition to the untrained one."""
    keep_segments: bool = False
    """Keep the weights at the end of each recording of the stream, for `setcon continual`."""
    picture_share: float = 0.01
    """Share of the time of learning that pictures of the newest frame may take, for `setcon watch`;
    0 makes none."""
    prequential_candidates: int = 32
    """States, of clips seen before, that each prediction on new footage is compared with."""
    prequential_gap_seconds: float = 2.0
    """Least distance in time of those clips from the new one."""

    def __post_init__(self) -> None:
        check_at_least(
            1,
            steps=self.steps,
            batch_clips=self.batch_clips,
            shards=self.shards,
            log_every_steps=self.log_every_steps,
            keep_checkpoints=self.keep_checkpoints,
            prequential_candidates=self.prequential_candidates,
        )
        check_above(0, checkpoint_every_seconds=self.checkpoint_every_seconds)
        check_at_least(0, seed=self.seed, prequential_gap_seconds=self.prequential_gap_seconds)
        check_within(0, MAX_THREADS, threads=self.threads)
        if self.batch_clips % self.shards:
            raise ValueError(
                f"batch_clips is {self.batch_clips}, which {self.shards} shards cannot share "
                "equally; use --set training.batch_clips="
                f"{self.shards * -(-self.batch_clips // self.shards)}, or a number of "
                f"shards that divides {self.batch_clips}"
            )
        check_within(0, 1, picture_share=self.picture_share)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How clips are changed whenever they are learned from; scores are of footage as it is."""

    shift: float = 0.0
    """Clips are moved by up to this share of their side, up or down and left or right."""
    flip: bool = False
    """Left and right are swapped in half of the clips."""
    jitter: float = 0.0
    """Each frame is moved on its own by up to this share of its side, up or down and left or right:
    as far as the camera moves in a clip, or further."""
    colour: float = 0.0
    """Each colour channel of a clip, with values in 0..1, is multiplied by a number that differs
    from 1 by at most this, and a number of at most this size is added."""

    def __post_init__(self) -> None:
        check_within(0, 0.5, shift=self.shift, jitter=self.jitter, colour=self.colour)
