"""A chart as an `<svg>` element that takes its colours and its font from the page around it.

A long curve is drawn as the mean of equal stretches, inside a band from their least to their
greatest value: a dip that lasted one step stays visible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np
from jaxtyping import Float

from online.scores.measures import Tone

WIDTH, HEIGHT = 400, 165
LEFT, RIGHT, TOP, BOTTOM = 34, 12, 6, 22
"""Room around the plot, for the labels of its axes."""
MARKED_POINTS = 12
"""A curve of at most so many points has a dot at each."""
_DASHES = {"untrained": ' stroke-dasharray="6 3"', "chance": ' stroke-dasharray="1.6 2.6"'}
_ROUND = (1, 2, 2.5, 5, 10)
"""First digits of the distance between ticks."""

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """Values over training steps."""

    label: str
    steps: Values
    values: Values
    tone: Tone
    around: tuple[Values, Values] | None = None
    """A band's lower and upper edge, for values that are means of several runs; finite."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where values lie on a line of pixels, and which of them are labelled."""

    low: float
    high: float
    begin: int
    end: int
    ticks: list[float]

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)


def chart_svg(
    curves: Sequence[Curve],
    *,
    label: str,
    until: float | None = None,
    limits: tuple[float, float] = (0.0, 0.0),
    stretches: int = 160,
    band: bool = True,
) -> str:
    """An `<svg>` element without fixed size; the same text for the same curves.

    `curves` are drawn in their order, later ones on top; values that are not finite are left out.
    `label` is what a screen reader says. The step axis ends at `until` or where the curves do. The
    value axis shows `limits`, the data and 0. A curve of more points than `stretches` is drawn as
    the mean of so many stretches, and their range if there is to be a `band`.
    """
    known = [finite for curve in curves if len((finite := _finite(curve)).values)]
    drawn = [_thinned(curve, stretches, band) for curve in known]
    x, y = _step_axis(drawn, until), _value_axis(drawn, limits)
    marks = [_grid(x, y), *(_band(curve, x, y) for curve in drawn)]
    marks += [_line(curve, _last(whole), x, y) for curve, whole in zip(drawn, known, strict=True)]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(marks)}</svg>"
    )


def _finite(curve: Curve) -> Curve:
    known = np.isfinite(curve.values)
    around = curve.around and (curve.around[0][known], curve.around[1][known])
    return replace(curve, steps=curve.steps[known], values=curve.values[known], around=around)


def _thinned(curve: Curve, stretches: int, band: bool) -> Curve:
    if len(curve.values) <= stretches:
        return curve
    parts = np.array_split(curve.values, stretches)
    edges = [np.array([edge(part) for part in parts]) for edge in (np.min, np.max)]
    return replace(
        curve,
        steps=np.array([part.mean() for part in np.array_split(curve.steps, stretches)]),
        values=np.array([part.mean() for part in parts]),
        around=(edges[0], edges[1]) if band else None,
    )


def _step_axis(curves: Sequence[Curve], until: float | None) -> _Axis:
    last = max([until or 0.0, *(float(curve.steps[-1]) for curve in curves)])
    high = last * 1.01 or 1.0
    return _Axis(0.0, high, LEFT, WIDTH - RIGHT, _ticks(0.0, high, most=6, whole=True))


def _value_axis(curves: Sequence[Curve], limits: tuple[float, float]) -> _Axis:
    shown = [curve.values for curve in curves]
    shown += [edge for curve in curves if curve.around for edge in curve.around]
    low = min([limits[0], *(float(values.min()) for values in shown)])
    high = max([limits[1], *(float(values.max()) for values in shown)])
    high = high + 0.03 * abs(high) if high > low else low + 1.0
    return _Axis(low, high, HEIGHT - BOTTOM, TOP, _ticks(low, high, most=5))


def _ticks(low: float, high: float, *, most: int, whole: bool = False) -> list[float]:
    """Round values at equal distances, at most `most` of them apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    apart = [first * power for first in _ROUND if not whole or (first * power).is_integer()]
    step = next((each for each in apart if each * most >= (high - low) * (1 - 1e-9)), 1.0)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _grid(x: _Axis, y: _Axis) -> str:
    lines = "".join(f'<path d="M{LEFT} {y.at(tick)}H{WIDTH - RIGHT}"/>' for tick in y.ticks)
    values = "".join(
        f'<text x="{LEFT - 5}" y="{y.at(tick) + 3:.1f}" text-anchor="end">{name}</text>'
        for tick, name in zip(y.ticks, _names(y.ticks), strict=True)
    )
    steps = "".join(
        f'<text x="{x.at(tick)}" y="{HEIGHT - 7}" text-anchor="middle">{name}</text>'
        for tick, name in zip(x.ticks, _names(x.ticks), strict=True)
    )
    return (
        f'<g stroke="var(--grid)" stroke-width="0.8">{lines}'
        f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/></g>'
        f'<g fill="var(--ink)" font-size="9">{values}{steps}</g>'
    )


def _names(ticks: Sequence[float]) -> list[str]:
    """Labels of ticks: 1500 as 1.5k, smaller ones with as many decimals as any of them needs."""
    named = [_short(tick) for tick in ticks]
    if all(abs(tick) < 1000 for tick in ticks):
        decimals = max((len(name.partition(".")[2]) for name in named), default=0)
        named = [name if "e" in name else f"{float(name):.{decimals}f}" for name in named]
    return [name.replace("-", "\N{MINUS SIGN}") for name in named]


def _short(value: float) -> str:
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if unit <= abs(value) < 1e15:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def _band(curve: Curve, x: _Axis, y: _Axis) -> str:
    if curve.around is None:
        return ""
    there = _points(curve.steps, curve.around[0], x, y)
    back = _points(curve.steps[::-1], curve.around[1][::-1], x, y)
    paint = f'fill="var(--{curve.tone})" fill-opacity="0.16"'
    return f'<polygon points="{there} {back}" {paint}/>'


def _line(curve: Curve, title: str, x: _Axis, y: _Axis) -> str:
    paint = f"var(--{curve.tone})"
    dots = ""
    if len(curve.values) <= MARKED_POINTS and curve.tone != "chance":
        dots = "".join(
            f'<circle cx="{x.at(step)}" cy="{y.at(value)}" r="2.1" fill="{paint}"/>'
            for step, value in zip(curve.steps, curve.values, strict=True)
        )
    return (
        f"<g><title>{escape(title)}</title>"
        f'<polyline points="{_points(curve.steps, curve.values, x, y)}" fill="none" '
        f'stroke="{paint}" stroke-width="1.6" stroke-linejoin="round"'
        f"{_DASHES.get(curve.tone, '')}/>{dots}</g>"
    )


def _last(curve: Curve) -> str:
    """What a pointer over its line reads."""
    return f"{curve.label}: {curve.values[-1]:.4g} at step {curve.steps[-1]:,.0f}"


def _points(steps: Values, values: Values, x: _Axis, y: _Axis) -> str:
    return " ".join(f"{x.at(a)},{y.at(b)}" for a, b in zip(steps, values, strict=True))
