"""The matrix R of a continual learner: what it knows of each recording, after each segment.

              probed on   balls   sprites   grid
    untrained             u_0     u_1       u_2
    after balls           R_00    R_01      R_02
    after sprites         R_10    R_11      R_12
    after grid            R_20    R_21      R_22

R is FG-ARI of the probe's alphas, or mBO of the segments of a model that finds objects. Unless all
recordings have masks, it is the share of the mean frame's error that the probe explains. Names of
what is read off it are those of Lopez-Paz & Ranzato 2017 (transfer), Chaudhry et al. 2018
(forgetting) and De Lange et al. 2023 (the lowest on the way).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from jaxtyping import Float

from online.scores.measures import Measure, measures

LEAST_GAIN = 0.05
"""Of the reference over the untrained encoder, from which on a share of it is a number."""


class Continual(msgspec.Struct, frozen=True, kw_only=True):
    """R and what it is compared with."""

    recordings: list[str]
    """Columns, in the order in which the stream came to them."""
    segments: list[str]
    """Rows: the recording that was learned from up to there."""
    steps: list[int]
    """Optimizer steps at the end of each row."""
    measure: str
    """`FG-ARI`, `mBO`, or `explained`: 1 - the probe's error as a share of the mean frame's."""
    scores: list[list[float]]
    """R: a row for each segment, a column for each recording; higher is better."""
    untrained: list[float]
    """Scores of the encoder before the first step."""
    reference: list[float] | None = None
    """Scores of another run's last weights, such as one that learned from all in random order."""

    def __post_init__(self) -> None:
        rows = [*self.scores, self.untrained, *([] if self.reference is None else [self.reference])]
        fits = all(len(row) == len(self.recordings) > 0 for row in rows)
        if not fits or not len(self.scores) == len(self.segments) == len(self.steps) > 0:
            raise ValueError("rows and columns are not those of one matrix")
        if unknown := set(self.recordings) - set(self.segments):
            raise ValueError(f"no segment of {min(unknown)!r}")

    @property
    def rows(self) -> list[tuple[str, list[float]]]:
        """All that is shown below each other: names, and scores on each recording."""
        named = [f"after {name}" for name in self.segments]
        rows = [("untrained", self.untrained), *zip(named, self.scores, strict=True)]
        return rows if self.reference is None else [*rows, ("the other run", self.reference)]

    @property
    def read_off(self) -> list[tuple[Measure, float | None]]:
        """Each number that is derived from R; None if these segments have no such number."""
        return [(measure, measure.value(self)) for measure in measures("page", "continual")]

    @property
    def final(self) -> float:
        """Mean over recordings at the end: the average of the last row."""
        return float(np.mean(self.scores[-1]))

    @property
    def forgetting(self) -> float | None:
        """What was lost of the best: mean over recordings but those first learned last."""
        best, last = self._matrix[:-1].max(axis=0, initial=-np.inf), self._matrix[-1]
        return _mean([best[j] - last[j] for j, _ in self._learned_before_last])

    @property
    def backward_transfer(self) -> float | None:
        """What later segments did to a recording since it was learned."""
        return _mean(
            [self._matrix[-1, j] - self._matrix[i, j] for j, i in self._learned_before_last]
        )

    @property
    def forward_transfer(self) -> float | None:
        """What earlier segments gave to a recording before it was learned, over the untrained."""
        ahead = [(j, i) for j, i in self._first_learned if i > 0]
        return _mean([self._matrix[i - 1, j] - self.untrained[j] for j, i in ahead])

    @property
    def lowest(self) -> float:
        """Mean over recordings of the lowest score after each one's own segment (WC-ACC).

        The recording learned last counts with its score. Only ends of segments are looked at: what
        was lost and regained within one is not seen.
        """
        last = len(self.segments) - 1
        lowest = [self._matrix[min(i + 1, last) :, j].min() for j, i in self._first_learned]
        return float(np.mean(lowest))

    @property
    def reached(self) -> float | None:
        """Share of the reference's gain over the untrained encoder that the end keeps.

        None where it has hardly gained: a share of noise says nothing.
        """
        if self.reference is None:
            return None
        gain = float(np.mean(self.reference)) - float(np.mean(self.untrained))
        return (self.final - float(np.mean(self.untrained))) / gain if gain >= LEAST_GAIN else None

    @property
    def _matrix(self) -> Float[np.ndarray, "i j"]:
        return np.array(self.scores)

    @property
    def _first_learned(self) -> list[tuple[int, int]]:
        """Column and row of each recording's first segment."""
        return [(j, self.segments.index(name)) for j, name in enumerate(self.recordings)]

    @property
    def _learned_before_last(self) -> list[tuple[int, int]]:
        return [(j, i) for j, i in self._first_learned if i < len(self.segments) - 1]


def to_json(result: Continual) -> bytes:
    """R and the numbers that are derived from it."""
    found = {measure.key: value for measure, value in result.read_off}
    both = msgspec.to_builtins(result) | found
    return msgspec.json.format(msgspec.json.encode(both), indent=2)


def load_continual(path: Path) -> Continual:
    """Read back what `to_json` gave.

    Raises FileNotFoundError: there is no such file. msgspec.DecodeError: the file holds something
    else.
    """
    return msgspec.json.decode(path.read_bytes(), type=Continual)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
