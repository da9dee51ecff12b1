"""The charts of a report: how training went, and what the probes found on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from online.reports.curves import Curve, Tone, chart_svg
from online.reports.page import chart_card
from online.runs.log import PrequentialEntry, RunLog, StepEntry
from online.scores.evaluation import Evaluation, ReconstructionScores

SHARE = (0.0, 1.0)
CLIPS_A_POINT = 5
"""New clips whose scores make one point at least."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Chart:
    """A chart before it is drawn."""

    title: str
    note: str
    curves: list[Curve]
    limits: tuple[float, float] | None = None
    stretches: int = 160
    band: bool = True


def curve_cards(run: RunLog) -> list[str]:
    """Charts as markup; none of what was never logged, and no probe curve of a single probe."""
    charts: list[_Chart] = []
    if run.steps:
        charts += [_loss(run.steps), _top1(run.steps)]
        if any(entry.exclusivity is not None for entry in run.steps):
            charts.append(_exclusivity(run.steps))
    if run.prequential:
        charts.append(_prequential(run.prequential))
    if len(run.evaluations) > 1:
        charts.append(_probe_mse(run.evaluations))
        if any(e.trained.current.alphas is not None for e in run.evaluations):
            charts.append(_probe_fg_ari(run.evaluations))
    if run.steps:
        charts += [_throughput(run.steps), _waiting(run.steps)]
    until = max((c.steps[-1] for chart in charts for c in chart.curves), default=0.0)
    return [_card(chart, until=float(until)) for chart in charts]


def _loss(steps: Sequence[StepEntry]) -> _Chart:
    return _Chart(
        title="Training loss",
        note="How hard it is to tell the predicted state from all others; at chance, nothing is "
        "learned.",
        curves=[
            _curve("chance", "chance", steps, lambda e: e.chance_loss),
            _curve("loss", "trained", steps, lambda e: e.loss),
        ],
    )


def _top1(steps: Sequence[StepEntry]) -> _Chart:
    return _Chart(
        title="Training top-1",
        note="Share of predictions, one step ahead, nearest to their own state among all "
        "candidates of the batch.",
        curves=[_curve("top-1", "trained", steps, lambda e: e.top1)],
        limits=SHARE,
    )


def _exclusivity(steps: Sequence[StepEntry]) -> _Chart:
    return _Chart(
        title="Exclusivity of slots",
        note="How much of what a slot reads is its alone, mean over slots: low where they share.",
        curves=[_curve("exclusivity", "trained", steps, lambda e: e.exclusivity)],
        limits=SHARE,
    )


def _prequential(entries: Sequence[PrequentialEntry]) -> _Chart:
    return _Chart(
        title="Next frame found, on new footage",
        note="Each clip is scored before it is learned from: the right frame against others of "
        "another time. It ends when all footage has been new once.",
        curves=[
            _curve("chance", "chance", entries, lambda e: 1 / (e.candidates + 1)),
            _curve("untrained encoder", "untrained", entries, lambda e: e.top1_untrained),
            _curve("last state copied", "second", entries, lambda e: e.top1_copy),
            _curve("predicted", "trained", entries, lambda e: e.top1),
        ],
        limits=SHARE,
        # a clip's score takes a few values only: their means are drawn, and no range
        stretches=max(2, min(40, len(entries) // CLIPS_A_POINT)),
        band=False,
    )


def _probe_mse(evaluations: Sequence[Evaluation]) -> _Chart:
    return _Chart(
        title="Probe MSE on held-out frames",
        note="As a share of the mean frame's; lower is better, 1 means nothing was read.",
        curves=_probe_curves(evaluations, lambda scores: scores.mse_share),
    )


def _probe_fg_ari(evaluations: Sequence[Evaluation]) -> _Chart:
    return _Chart(
        title="Held-out FG-ARI",
        note="Agreement of the alphas with the true objects; 1 is perfect, 0 chance.",
        curves=_probe_curves(
            evaluations, lambda scores: None if scores.alphas is None else scores.alphas.fg_ari
        ),
        limits=SHARE,
    )


def _probe_curves(
    evaluations: Sequence[Evaluation], value: Callable[[ReconstructionScores], float | None]
) -> list[Curve]:
    return [
        _curve("untrained encoder", "untrained", evaluations, lambda e: value(e.untrained.current)),
        _curve("predicted frame", "second", evaluations, lambda e: value(e.trained.predicted)),
        _curve("current frame", "trained", evaluations, lambda e: value(e.trained.current)),
    ]


def _throughput(steps: Sequence[StepEntry]) -> _Chart:
    return _Chart(
        title="Throughput",
        note="Triplets learned from per second.",
        curves=[_curve("triplets/s", "trained", steps, lambda e: e.triplets_per_second)],
    )


def _waiting(steps: Sequence[StepEntry]) -> _Chart:
    return _Chart(
        title="Waiting for data",
        note="Share of time in which the trainer had no clip to go on with.",
        curves=[_curve("share of time", "trained", steps, lambda e: e.wait_share)],
        limits=SHARE,
    )


def _card(chart: _Chart, *, until: float) -> str:
    svg = chart_svg(
        chart.curves,
        label=chart.title,
        until=until,
        limits=chart.limits,
        stretches=chart.stretches,
        band=chart.band,
    )
    return chart_card(chart.title, chart.note, chart.curves, svg)


def _curve(
    label: str, tone: Tone, entries: Sequence[Any], value: Callable[[Any], float | None]
) -> Curve:
    """One value of each entry over its step; what an entry lacks becomes NaN."""
    values = [value(entry) for entry in entries]
    return Curve(
        label=label,
        tone=tone,
        steps=np.array([entry.step for entry in entries], dtype=np.float64),
        values=np.array([math.nan if v is None else v for v in values], dtype=np.float64),
    )
