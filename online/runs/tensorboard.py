"""Curves for TensorBoard, of a run that continues: what a later start repeats is shown once.

`pip install -e '.[tensorboard]'` is all that it takes; without it nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from online.runs.entries import PrequentialEntry, StepEntry
from online.scores.evaluation import Evaluation
from online.scores.measures import Kind, measures
from online.scores.parts import CURRENT, UNTRAINED

Points = Mapping[str, float | None]
"""A value of each curve at one step; None where there is none."""


class TensorBoard:
    """Scalars by step, in event files of their own for every start of a run."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        """Write to `folder`; what earlier starts wrote after `after_step` is void."""
        from torch.utils.tensorboard import SummaryWriter  # takes a while to import

        self._writer = SummaryWriter(str(folder), purge_step=after_step + 1)

    def draw(self, step: int, points: Points) -> None:
        """One point of each curve; None and what is not finite leave one out."""
        for name, value in points.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """One picture under `name`."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Put on disk what was drawn."""
        self._writer.flush()

    def close(self) -> None:
        """Put on disk what was drawn, and close the file."""
        self._writer.close()


def open_tensorboard(folder: Path, *, after_step: int) -> TensorBoard | None:
    """`TensorBoard`, or None where it is not installed."""
    if find_spec("tensorboard") is None:
        return None
    return TensorBoard(folder, after_step=after_step)


def step_points(entry: StepEntry) -> Points:
    """The points of an optimizer step."""
    return _logged("step", entry, prefix="")


def prequential_points(entry: PrequentialEntry) -> Points:
    """The points of a clip that was scored before it was trained on."""
    return _logged("prequential", entry, prefix="prequential/")


def evaluation_points(evaluation: Evaluation) -> Points:
    """The points of a probe: the current frame's slots and their encoder, trained and untrained."""
    points: dict[str, float | None] = {}
    for measure in measures("tensorboard", "drawing", "masks"):
        points[f"probe/{measure.key}"] = measure.of_part(evaluation, CURRENT)
        points[f"probe/{measure.key}_untrained"] = measure.of_part(evaluation, UNTRAINED)
    for measure in measures("tensorboard", "encoder"):
        points[f"probe/{measure.key}"] = measure.value(evaluation.trained)
        points[f"probe/{measure.key}_untrained"] = measure.value(evaluation.untrained)
    return points


def _logged(kind: Kind, entry: StepEntry | PrequentialEntry, *, prefix: str) -> Points:
    points: dict[str, float | None] = {}
    for measure in measures("tensorboard", kind):
        points[f"{prefix}{measure.key}"] = measure.value(entry)
        for baseline in measure.baselines:
            if baseline.key:
                points[f"{prefix}{baseline.key}"] = baseline.value(entry)
    return points
