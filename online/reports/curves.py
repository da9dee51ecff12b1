"""Curves over training steps as SVG that takes its colours from the page around it.

A long curve is drawn as the mean of equal stretches, inside a band from their least to their
greatest value: a dip that lasted one step stays visible.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from typing import Literal

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

Tone = Literal["trained", "second", "third", "fourth", "untrained", "chance"]

# matplotlib wants numbers; each stands for a variable of the page's style sheet
_PAINT: dict[str, str] = {
    "trained": "#00a001",
    "second": "#00a002",
    "untrained": "#00a003",
    "chance": "#00a004",
    "ink": "#00a005",
    "grid": "#00a006",
    "third": "#00a007",
    "fourth": "#00a008",
}
_LINE_STYLE: dict[str, str] = {"chance": ":", "untrained": "--"}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_WIDTH_INCHES, _HEIGHT_INCHES = 5.6, 2.3
_MARKED_POINTS = 12
_ROUND = [1, 2, 2.5, 5, 10]
"""First digits of the distance between ticks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """Values over training steps."""

    label: str
    steps: Float[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]
    tone: Tone
    around: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None = None
    """A band's lower and upper edge, for values that are means of several runs; finite."""


def chart_svg(
    curves: list[Curve],
    *,
    label: str,
    until: float | None = None,
    limits: tuple[float, float] | None = None,
    stretches: int = 160,
    band: bool = True,
) -> str:
    """An `<svg>` element without fixed size; the same text for the same curves.

    Args:
        curves: drawn in this order, later ones on top; values that are not finite are left out.
        label: what a screen reader says.
        until: end of the step axis, to make charts of one run comparable.
        limits: what the value axis shows at least; 0 and the data are always on it.
        stretches: a curve of more points is drawn as the mean and range of so many stretches.
        band: whether the range is drawn; it says nothing where single values are coarse.
    """
    figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), facecolor="none")
    axes = figure.add_axes((0.085, 0.14, 0.9, 0.83), facecolor="none")
    for curve in curves:
        _draw(axes, curve, stretches, band)
    _style(axes)
    _set_limits(axes, until, limits or (0.0, 0.0))
    # text stays text, in the page's font; a fixed salt gives the same ids each time
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata=_NO_METADATA)
    return _for_page(buffer.getvalue(), label)


def _draw(axes: Axes, curve: Curve, stretches: int, band: bool) -> None:
    finite = np.isfinite(curve.values)
    steps, values = curve.steps[finite], curve.values[finite]
    if not len(values):
        return
    paint = _PAINT[curve.tone]
    if curve.around is not None:
        axes.fill_between(curve.steps, *curve.around, color=paint, alpha=0.16, linewidth=0)
    if len(values) > stretches:
        parts = np.array_split(values, stretches)
        steps = np.array([part.mean() for part in np.array_split(steps, stretches)])
        values = np.array([part.mean() for part in parts])
        if band:
            low, high = [part.min() for part in parts], [part.max() for part in parts]
            axes.fill_between(steps, low, high, color=paint, alpha=0.16, linewidth=0)
    axes.plot(
        steps,
        values,
        color=paint,
        linewidth=1.6,
        linestyle=_LINE_STYLE.get(curve.tone, "-"),
        marker="o" if len(values) <= _MARKED_POINTS and curve.tone != "chance" else None,
        markersize=4,
        solid_joinstyle="round",
    )


def _style(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PAINT["grid"])
    axes.grid(axis="y", color=_PAINT["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=_PAINT["ink"])
    axes.tick_params(axis="x", pad=6)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=_ROUND))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=_ROUND))
    if axes.yaxis.get_data_interval()[1] >= 1000:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _set_limits(axes: Axes, until: float | None, limits: tuple[float, float]) -> None:
    data = axes.dataLim
    if not np.isfinite(data.get_points()).all():  # nothing was drawn
        axes.set(xlim=(0, until or 1), ylim=(limits[0], limits[1] or 1))
        return
    room = 0.03 * max(data.y1, limits[1], 1e-12)
    axes.set_xlim(0, max(until or 0, data.x1) * 1.01 or 1)
    axes.set_ylim(min(data.y0, limits[0]), max(data.y1, limits[1]) + room)


def _for_page(svg: str, label: str) -> str:
    """Drop the file's head, style, size and group ids; put in the page's font and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        lambda found: f'<svg viewBox="{found[1]}" role="img" aria-label="{escape(label)}">',
        svg,
        count=1,
    )
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for name, paint in _PAINT.items():
        svg = svg.replace(paint, f"var(--{name})")
    return svg.replace("xlink:href", "href")  # the other needs a name space that HTML has not
