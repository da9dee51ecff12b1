"""What `setcon compare` writes: scores of all groups, their curves and a picture of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingest.store.output import output_fault
from online.errors import RunError
from online.reports.compare import (
    Group,
    Measure,
    Points,
    fg_ari,
    mean_text,
    measures,
    mse_share,
    remarks,
    spread,
)
from online.reports.curves import Curve, Tone, chart_svg
from online.reports.figures import draw_hero
from online.reports.page import chart_card, heading, page, picture, text, write_page
from online.runs.log import RunLog

TONES: tuple[Tone, ...] = ("trained", "second", "third", "fourth")
STRETCHES = 80
PICTURE_BYTES = 300_000
PICTURE_FRAMES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chart:
    """What is drawn of every run over its steps."""

    title: str
    note: str
    entries: Callable[[RunLog], Sequence[Any]]
    value: Callable[[Any], float | None]
    is_share: bool = True
    stretches: int = STRETCHES


_CHARTS = (
    _Chart(
        title="Held-out FG-ARI",
        note="Agreement of the alphas with the true objects; 1 is perfect, 0 chance.",
        entries=lambda run: run.evaluations,
        value=lambda e: fg_ari(e.trained.current),
    ),
    _Chart(
        title="Probe MSE on held-out frames",
        note="As a share of the mean frame's; lower is better, 1 means nothing was read.",
        entries=lambda run: run.evaluations,
        value=lambda e: mse_share(e.trained.current),
    ),
    _Chart(
        title="Next frame found, on new footage",
        note="Each clip is scored before it is learned from: the right frame against others of "
        "another time.",
        entries=lambda run: run.prequential,
        value=lambda e: e.top1,
        stretches=40,
    ),
    _Chart(
        title="Training top-1",
        note="Share of predictions, one step ahead, nearest to their own state among all "
        "candidates of the batch.",
        entries=lambda run: run.steps,
        value=lambda e: e.top1,
    ),
    _Chart(
        title="Exclusivity of slots",
        note="How much of what a slot reads is its alone, mean over slots.",
        entries=lambda run: run.steps,
        value=lambda e: e.exclusivity,
    ),
    _Chart(
        title="Training loss",
        note="How hard it is to tell the predicted state from all others; with loss.horizon, the "
        "mean of all steps ahead, so that two horizons do not compare.",
        entries=lambda run: run.steps,
        value=lambda e: e.loss,
        is_share=False,
    ),
)


def write_comparison(groups: Sequence[Group], path: Path, *, overwrite: bool) -> None:
    """Write the page, which needs nothing beside itself.

    Raises RunError: no page may be written there; StoreError: it cannot be.
    """
    if fault := output_fault(path, what="the page", endings=(".html", ".htm"), overwrite=overwrite):
        raise RunError(fault)
    write_page(comparison_html(groups), path)


def comparison_html(groups: Sequence[Group]) -> str:
    """The page; the same for the same runs."""
    count = sum(len(group.runs) for group in groups)
    return page(
        f"{_runs(count)} · SetCon",
        [
            f"<header><h1>{_runs(count)}</h1>{''.join(map(_members, groups))}</header>",
            _scores(groups),
            *(f'<p class="quiet">{text(each)}.</p>' for each in remarks(groups)),
            _charts(groups),
            *_pictures(groups),
        ],
    )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _members(group: Group) -> str:
    names = ", ".join(_member(run) for run in group.runs)
    return f'<p class="names"><b>{text(group.name)}</b>: {text(names)}</p>'


def _member(run: RunLog) -> str:
    store = run.source.store if run.source is not None else ""
    return f"{run.path} (on {store})" if store else str(run.path)


def _scores(groups: Sequence[Group]) -> str:
    found = measures(groups)
    if not found:
        return ""
    heads = "".join(f'<th scope="col">{text(group.name)}</th>' for group in groups)
    rows = "".join(
        f'<tr><th scope="row">{text(measure.name)}</th>'
        + "".join(_cell(group, measure) for group in groups)
        + f"<td>{text(measure.meaning)}</td></tr>"
        for measure in found
    )
    several = any(len(group.runs) > 1 for group in groups)
    spread_over = "The mean, its standard error over seeds, and each run's in the order above."
    note = spread_over if several else "A single run each: no standard errors."
    note = f"Of the latest probe, or of the end of training. {note}"
    return heading("Scores", note) + (
        '<div class="wide scores"><table class="compared"><thead><tr><th></th>'
        f'{heads}<th scope="col">what it means</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(group: Group, measure: Measure) -> str:
    values = group.values(measure)
    each = " ".join(
        "-" if value is None else format(value, f".{measure.decimals}f")
        for value in group.each(measure)
    )
    single = f'<br><span class="quiet">{each}</span>' if len(group.runs) > 1 else ""
    return f"<td>{mean_text(values, measure.decimals)}{single}</td>"


def _charts(groups: Sequence[Group]) -> str:
    cards = [card for chart in _CHARTS if (card := _card(chart, groups))]
    if not cards:
        return ""
    note = "Over training steps. Lines are means over seeds, bands reach from the least to the "
    note += "greatest run; they end where the first of them does."
    return heading("Curves", note) + f'<div class="charts">{"".join(cards)}</div>'


def _card(chart: _Chart, groups: Sequence[Group]) -> str:
    curves: list[Curve] = []
    for group, tone in zip(groups, TONES, strict=False):
        every = [_points(chart, run) for run in group.runs]
        drawn = [points for points in every if len(points) > 1]
        found = spread(drawn, stretches=chart.stretches)
        if found is not None:
            left_out = f" ({len(drawn)} of {len(every)})" if len(drawn) < len(every) else ""
            around = (found.low, found.high) if len(drawn) > 1 else None
            curves.append(
                Curve(
                    label=group.name + left_out,
                    steps=found.steps,
                    values=found.mean,
                    tone=tone,
                    around=around,
                )
            )
    if not curves:
        return ""
    svg = chart_svg(
        curves,
        label=chart.title,
        limits=(0.0, 1.0) if chart.is_share else None,
        stretches=STRETCHES,
    )
    return chart_card(chart.title, chart.note, curves, svg)


def _points(chart: _Chart, run: RunLog) -> Points:
    values = [(entry.step, chart.value(entry)) for entry in chart.entries(run)]
    known = [(step, value) for step, value in values if value is not None and math.isfinite(value)]
    return np.array(known, dtype=np.float64).reshape(-1, 2)


def _pictures(groups: Sequence[Group]) -> list[str]:
    """What the first run of each group sees."""
    drawn: list[str] = []
    for group in groups:
        run = next((run for run in group.runs if run.panels is not None), None)
        if run is not None and run.panels is not None:
            drawn.append(
                picture(
                    draw_hero(run.panels, most=PICTURE_FRAMES),
                    label=f"Held-out frames and slots of {run.path}",
                    caption=f"{group.name}: held-out frames of {run.path}.",
                    crisp=True,
                    limit_bytes=PICTURE_BYTES,
                )
            )
    return [heading("What the slots hold"), *drawn] if drawn else []
