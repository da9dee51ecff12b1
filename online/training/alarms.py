"""Alarms of a run that goes on all the same: its loss is stuck, or its gradients explode."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

from online.training.result import StepResult


class Alarms:
    """All alarms of a run; their state is part of its checkpoint."""

    def __init__(self) -> None:
        self.collapse = CollapseAlarm()
        self.gradient = GradientAlarm()

    def update(self, result: StepResult) -> list[str]:
        """Messages of the alarms that go off at this step."""
        messages = (self.collapse.update(result), self.gradient.update(result))
        return [message for message in messages if message is not None]

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "steps_at_chance": self.collapse.steps_at_chance,
            "steps_above": self.gradient.steps_above,
            "grad_norms": list(self.gradient.norms),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.collapse.steps_at_chance = state["steps_at_chance"]
        self.gradient.steps_above = state["steps_above"]
        self.gradient.norms.extend(state["grad_norms"])


class CollapseAlarm:
    """Notices a loss that sits at chance: predictions that no longer distinguish frames.

    Chance is ln(states) when predictions are far from all states, and that of a guess among all
    candidates when everything is one point.
    """

    tolerance = 0.02
    patience_steps = 200

    def __init__(self) -> None:
        self.steps_at_chance = 0

    def update(self, result: StepResult) -> str | None:
        """A message on the step at which the alarm goes off, else None."""
        at_chance = any(
            abs(result.loss - chance) <= self.tolerance * chance
            for chance in (math.log(result.states), result.chance)
        )
        stuck = at_chance and result.top1 <= 3 / result.states
        self.steps_at_chance = self.steps_at_chance + 1 if stuck else 0
        if self.steps_at_chance != self.patience_steps:
            return None
        return (
            f"collapse: loss {result.loss:.3f} at chance and top-1 {result.top1:.3f} for "
            f"{self.patience_steps} steps; try loss.standardise or a lower learning rate"
        )


class GradientAlarm:
    """Notices gradients that are far larger than usual, several steps in a row.

    Usual is the median norm of the latest steps, which a few large ones do not move.
    """

    times = 100
    patience_steps = 3
    least_steps = 20
    """Steps before there is anything to compare with."""
    window_steps = 200

    def __init__(self) -> None:
        self.steps_above = 0
        self.norms: deque[float] = deque(maxlen=self.window_steps)

    def update(self, result: StepResult) -> str | None:
        """A message on the step at which the alarm goes off, else None."""
        norm = result.grad_norm
        usual = statistics.median(self.norms) if len(self.norms) >= self.least_steps else math.inf
        self.norms.append(norm)
        self.steps_above = self.steps_above + 1 if norm > self.times * usual else 0
        if self.steps_above != self.patience_steps:
            return None
        return (
            f"exploding gradient: norm {norm:.3g} against a median of {usual:.3g}, for "
            f"{self.patience_steps} steps; lower optimizer.learning_rate or set optimizer.clip_norm"
        )
