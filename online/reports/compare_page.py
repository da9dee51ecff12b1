"""What `setcon compare` writes: scores of all groups, their curves and a picture of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ingest.store.output import output_fault
from online.errors import RunError
from online.reports.charts import Curve
from online.reports.compare import Row, remarks, rows, spread
from online.reports.curves import Chart, card, charts
from online.reports.figures import draw_hero
from online.reports.groups import Group
from online.reports.page import SCROLLS, heading, page, picture, text, with_subscripts, write_page
from online.runs.log import RunLog
from online.scores.measures import Tone
from online.scores.numbers import mean_text

TONES: tuple[Tone, ...] = ("trained", "second", "third", "fourth")
STRETCHES = 80
"""Fewer than in a report, as a chart holds several groups."""
PICTURE_BYTES = 300_000
PICTURE_FRAMES = 2


def check_page(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where the page may not be written, before anything is read for it.

    Raises RunError: there is a file, no folder, or the like.
    """
    if fault := output_fault(path, what="the page", endings=(".html", ".htm"), overwrite=overwrite):
        raise RunError(fault)


def write_comparison(groups: Sequence[Group], path: Path, *, overwrite: bool) -> None:
    """Write the page, which needs no other file.

    Raises RunError: no page may be written there; StoreError: it cannot be.
    """
    check_page(path, overwrite=overwrite)
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
    return f'<p class="names"><b>{text(group.lead)}</b>: {text(names)}</p>'


def _member(run: RunLog) -> str:
    store = run.source.store if run.source is not None else ""
    return f"{run.path} (on {store})" if store else str(run.path)


def _scores(groups: Sequence[Group]) -> str:
    found = rows(groups)
    if not found:
        return ""
    heads = "".join(f'<th scope="col">{_breakable(group.name)}</th>' for group in groups)
    body = "".join(
        f'<tr><th scope="row">{with_subscripts(text(row.heading))}</th>'
        + "".join(_cell(group, row) for group in groups)
        + f'<td class="meaning">{with_subscripts(text(row.meaning))}</td></tr>'
        for row in found
    )
    several = any(len(group.runs) > 1 for group in groups)
    spread_over = "The mean, its standard error over seeds, and each run's in the order above."
    note = spread_over if several else "A single run each: no standard errors."
    note = f"From the latest probe, or the end of training. {note}"
    return heading("Scores", note) + (
        f'<div class="wide scores" {SCROLLS}><table class="compared"><thead><tr><th></th>'
        f'{heads}<th class="meaning" scope="col">what it means</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _breakable(name: str) -> str:
    """Settings may break after a dot or an equals sign, and not within a word."""
    return text(name).replace(".", ".<wbr>").replace("=", "=<wbr>")


def _cell(group: Group, row: Row) -> str:
    each = " ".join(row.shown(value) for value in row.each(group))
    single = f'<br><span class="quiet">{each}</span>' if len(group.runs) > 1 else ""
    return f"<td>{mean_text(row.values(group), row.shown)}{single}</td>"


def _charts(groups: Sequence[Group]) -> str:
    cards = [found for chart in charts("compare") if (found := _card(chart, groups))]
    if not cards:
        return ""
    note = "Over training steps. Lines are means over seeds, bands reach from the least to the "
    note += "greatest run; they end where the first of them does."
    return heading("Curves", note) + f'<div class="charts">{"".join(cards)}</div>'


def _card(chart: Chart, groups: Sequence[Group]) -> str:
    found = [_curve(chart, group, tone) for group, tone in zip(groups, TONES, strict=False)]
    curves = [curve for curve in found if curve is not None]
    return card(chart, curves, stretches=STRETCHES) if curves else ""


def _curve(chart: Chart, group: Group, tone: Tone) -> Curve | None:
    """The measure's own line as the mean of all runs that have one."""
    every = [chart.lines[-1].points(chart.entries(run)) for run in group.runs]
    drawn = [points for points in every if len(points) > 1]
    fewest = min(map(len, drawn), default=0)
    found = spread(drawn, stretches=chart.stretches(fewest, most=STRETCHES))
    if found is None:
        return None
    left_out = f" ({len(drawn)} of {len(every)})" if len(drawn) < len(every) else ""
    return Curve(
        label=group.name + left_out,
        steps=found.steps,
        values=found.mean,
        tone=tone,
        around=(found.low, found.high) if len(drawn) > 1 else None,
    )


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
