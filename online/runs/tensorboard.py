"""Curves for TensorBoard, of a run that continues: what a later start repeats is shown once.

`pip install 'setcon[tensorboard]'` is all that it takes; without it nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path


class Curves:
    """Scalars by step, in event files of their own for every start of a run."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        """Write to `folder`; what earlier starts wrote after `after_step` is void."""
        from torch.utils.tensorboard import SummaryWriter  # takes a while to import

        self._writer = SummaryWriter(str(folder), purge_step=after_step + 1)

    def draw(self, step: int, values: Mapping[str, float | None]) -> None:
        """One point of each curve; None and what is not finite leave one out."""
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Put on disk what was drawn."""
        self._writer.flush()

    def close(self) -> None:
        """Put on disk what was drawn, and let go of the file."""
        self._writer.close()


def open_curves(folder: Path, *, after_step: int) -> Curves | None:
    """`Curves`, or None where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        return None
    return Curves(folder, after_step=after_step)
