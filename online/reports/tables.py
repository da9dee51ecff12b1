"""The tables of scores: trained next to its baselines, and what each row and column means."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from online.reports.page import SCROLLS, text, with_subscripts
from online.scores.evaluation import Evaluation, Placed
from online.scores.measures import Measure, measures
from online.scores.parts import WITHOUT_MODEL, Part, parts

_EXPLAINED = ("copied", *(part.column for part in WITHOUT_MODEL))
"""Columns whose heads do not say enough."""
_NO_EVIDENCE = (
    "Slots that do no better than the best segmentation without a model have not been shown to "
    "know objects."
)


def score_table(evaluation: Evaluation) -> str:
    """Two tables as markup: what is drawn and segmented, and how the encoder uses its slots.

    What has no number at all is left out: without masks in the footage, all of their scores.
    """
    shown = [part for part in parts("page") if _is_scored(evaluation, part)]
    measured = [
        measure
        for measure in measures("page", "drawing", "masks")
        if any(measure.of_part(evaluation, part) is not None for part in shown)
    ]
    return (
        _table(_part_head(shown), [_part_row(evaluation, measure, shown) for measure in measured])
        + _meanings(measured, shown)
        + _table(_encoder_head(), _encoder_rows(evaluation))
        + _best_slots(evaluation.trained.places or [])
    )


def _is_scored(evaluation: Evaluation, part: Part) -> bool:
    every = measures("page", "drawing", "masks")
    return any(measure.of_part(evaluation, part) is not None for measure in every)


def _part_row(evaluation: Evaluation, measure: Measure, shown: Sequence[Part]) -> str:
    cells = [measure.shown(measure.of_part(evaluation, part)) for part in shown]
    return _row(measure.heading, cells, ours=[part.is_ours for part in shown])


def _encoder_rows(evaluation: Evaluation) -> list[str]:
    both = (evaluation.trained, evaluation.untrained)
    return [
        _row(
            _capitalised(measure.heading),
            [measure.text(scores) for scores in both],
            ours=[True, False],
            meaning=measure.meaning,
        )
        for measure in measures("page", "encoder")
        if all(measure.value(scores) is not None for scores in both)
    ]


def _row(name: str, cells: Sequence[str], *, ours: Sequence[bool], meaning: str = "") -> str:
    shown = "".join(
        f'<td class="{"ours" if is_ours else "theirs"}">{text(cell)}</td>'
        for cell, is_ours in zip(cells, ours, strict=True)
    )
    if meaning:
        shown += f'<td class="meaning">{with_subscripts(text(meaning))}</td>'
    return f'<tr><th scope="row">{text(name)}</th>{shown}</tr>'


def _part_head(shown: Sequence[Part]) -> str:
    groups = [(name, list(each)) for name, each in groupby(shown, lambda p: p.group)]
    upper = "".join(
        f'<th colspan="{len(each)}" scope="colgroup">{with_subscripts(text(name))}</th>'
        for name, each in groups
    )
    lower = "".join(_column_head(part) for _, each in groups for part in each)
    return f'<tr><th rowspan="2" scope="col"></th>{upper}</tr><tr class="columns">{lower}</tr>'


def _column_head(part: Part) -> str:
    return f'<th scope="col">{text(part.column)}</th>'


def _encoder_head() -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("", "trained", "untrained"))
    return f'<tr>{heads}<th class="meaning" scope="col">what it means</th></tr>'


def _meanings(measured: Sequence[Measure], shown: Sequence[Part]) -> str:
    """What rows and columns mean, under a table that has no room for it."""
    said = [(measure.name, measure.meaning) for measure in measured]
    said += [
        (_capitalised(part.column), part.meaning) for part in shown if part.column in _EXPLAINED
    ]
    items = "".join(
        f"<div><dt>{text(name)}</dt><dd>{with_subscripts(text(meaning))}</dd></div>"
        for name, meaning in said
    )
    has_simple = any(part in WITHOUT_MODEL for part in shown)
    evidence = f'<p class="quiet">{_NO_EVIDENCE}</p>' if has_simple else ""
    return f'<dl class="meanings">{items}</dl>{evidence}'


def _capitalised(name: str) -> str:
    return name[0].upper() + name[1:]


def _best_slots(places: Sequence[Placed]) -> str:
    if not places:
        return ""
    each = ", ".join(f"{p.label} by slot {p.slot} ({p.r2:.2f})" for p in places)
    return f'<p class="quiet">Objects and the trained slot that places each best: {each}.</p>'


def _table(head: str, rows: Sequence[str]) -> str:
    return (
        f'<div class="wide scores" {SCROLLS}><table><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
