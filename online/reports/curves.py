"""What is drawn over training steps: one chart for each measure, of one run or of several.

run       each measure over its baselines
groups    each measure alone: a line for each group, the mean of its runs in their range
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from online.reports.charts import Curve, chart_svg
from online.reports.page import chart_card
from online.runs.log import RunLog
from online.scores.measures import Measure, Tone, measures
from online.scores.parts import CURRENT, PREDICTED, UNTRAINED, Display, Part

Points = Float[np.ndarray, "_points 2"]
"""Steps and values, in order of steps; a different number for each run."""

STRETCHES = 160
CLIPS_A_POINT = 5
"""New clips whose scores make one point at least: a clip's score takes a few values only."""
MOST_POINTS_OF_CLIPS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One value of each entry."""

    name: str
    tone: Tone
    value: Callable[[Any], float | None]

    def points(self, entries: Sequence[Any]) -> Points:
        """Steps and values of the entries that have a finite value."""
        values = [(entry.step, self.value(entry)) for entry in entries]
        known = [(step, v) for step, v in values if v is not None and math.isfinite(v)]
        return np.array(known, dtype=np.float64).reshape(-1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A measure over the steps of a run."""

    measure: Measure
    entries: Callable[[RunLog], Sequence[Any]]
    """Lines of its log, or its evaluations."""
    lines: list[Line]
    """Baselines, and the measure's own last."""
    fewest: int = 1
    """Entries that it takes to draw anything."""

    @property
    def limits(self) -> tuple[float, float]:
        """What the value axis shows at least."""
        return (0.0, 1.0) if self.measure.is_share else (0.0, 0.0)

    @property
    def is_coarse(self) -> bool:
        """Single values are so coarse that only means of several say anything."""
        return self.measure.kind == "prequential"

    def stretches(self, points: int, most: int = STRETCHES) -> int:
        """How many means a curve of `points` points is drawn as."""
        if not self.is_coarse:
            return most
        return max(2, min(MOST_POINTS_OF_CLIPS, points // CLIPS_A_POINT))


def charts(display: Display) -> list[Chart]:
    """The charts of all measures that have a curve and are shown there."""
    shown = measures(display, "drawing", "masks", "encoder", "step", "prequential")
    return [_chart(measure) for measure in shown if "curves" not in measure.left_out]


def curve_cards(run: RunLog) -> list[str]:
    """Charts as markup; none of what was never logged, and no probe curve of a single probe."""
    drawn: list[tuple[Chart, list[Curve]]] = []
    for chart in charts("curves"):
        entries = chart.entries(run)
        curves = [_curve(line, line.points(entries)) for line in chart.lines]
        if len(entries) >= chart.fewest and len(curves[-1].values):
            drawn.append((chart, [curve for curve in curves if len(curve.values)]))
    until = max((c.steps[-1] for _, curves in drawn for c in curves), default=0.0)
    return [
        card(
            chart,
            curves,
            until=float(until),
            stretches=chart.stretches(len(curves[-1].values)),
            band=not chart.is_coarse,
        )
        for chart, curves in drawn
    ]


def card(
    chart: Chart,
    curves: Sequence[Curve],
    *,
    until: float | None = None,
    stretches: int,
    band: bool = True,
) -> str:
    """A chart with its title, what it means and its legend."""
    measure = chart.measure
    svg = chart_svg(
        curves,
        label=measure.title,
        until=until,
        limits=chart.limits,
        stretches=stretches,
        band=band,
    )
    return chart_card(measure.title, measure.meaning, curves, svg)


def _chart(measure: Measure) -> Chart:
    own = Line(name=measure.name, tone="trained", value=measure.value)
    lines = [*(Line(name=b.name, tone=b.tone, value=b.value) for b in measure.baselines), own]
    match measure.kind:
        case "step":
            return Chart(measure=measure, entries=lambda run: run.steps, lines=lines)
        case "prequential":
            return Chart(measure=measure, entries=lambda run: run.prequential, lines=lines)
        case "encoder":
            lines = [
                _line_of_encoder(measure, "untrained"),
                _line_of_encoder(measure, "trained"),
            ]
        case _:
            lines = [
                _line_of_part(measure, UNTRAINED, "untrained"),
                _line_of_part(measure, PREDICTED, "second"),
                _line_of_part(measure, CURRENT, "trained"),
            ]
    return Chart(measure=measure, entries=lambda run: run.evaluations, lines=lines, fewest=2)


def _line_of_part(measure: Measure, part: Part, tone: Tone) -> Line:
    name = part.group if part.is_ours else part.name
    return Line(name=name, tone=tone, value=lambda e: measure.of_part(e, part))


def _line_of_encoder(measure: Measure, which: Literal["trained", "untrained"]) -> Line:
    return Line(name=which, tone=which, value=lambda e: measure.value(getattr(e, which)))


def _curve(line: Line, points: Points) -> Curve:
    return Curve(label=line.name, tone=line.tone, steps=points[:, 0], values=points[:, 1])
