"""What one optimizer step has measured."""

from __future__ import annotations

from dataclasses import dataclass

from online.replay.long_term import Feedback


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
