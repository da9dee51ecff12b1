"""Settings of evaluations; importing them does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from online.training.config import MAX_THREADS
from setcon.checks import check_at_least, check_within


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How often, and on how much footage, the probe looks."""

    every_steps: int = 5000
    """Optimizer steps between two evaluations during training; another one comes at the end."""
    train_clips: int = 250
    """Clips of the training part that the probe is fitted on."""
    held_out_clips: int = 60
    """Clips of the held-out part that it is scored on."""
    clip_length: int = 4
    """Frames of each clip that are used, after the 2 * frame_stride that predict them."""
    panel_frames: int = 6
    """Frames drawn in the panels."""
    beside: bool = False
    """Probe in a separate process while learning goes on; it needs a core and memory of its own.
    A probe that is due before the last one has finished is skipped, which is logged."""
    threads: int = 1
    """CPU threads of that process."""

    def __post_init__(self) -> None:
        check_at_least(
            1,
            every_steps=self.every_steps,
            train_clips=self.train_clips,
            held_out_clips=self.held_out_clips,
            clip_length=self.clip_length,
            panel_frames=self.panel_frames,
        )
        check_within(1, MAX_THREADS, threads=self.threads)
