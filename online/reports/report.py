"""`report.html`: a run on one page that needs no other file.

    verdict ─ numbers ─ a picture ─ scores ─ curves ─ all panels ─ events ─ settings ─ commands

It is written after every probe, so it has to make do with what a run has left so far.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ingest.addresses import may_be_store
from online.reports.curves import curve_cards
from online.reports.figures import draw_hero, draw_panels, hero_caption
from online.reports.glimpses import draw_glimpse
from online.reports.heat_map import draw_heat_map
from online.reports.page import (
    command_block,
    folded,
    heading,
    page,
    picture,
    text,
    tile,
    write_page,
)
from online.reports.tables import score_table
from online.reports.verdict import judged, judged_by, recent_top1, verdict
from online.runs.entries import EventEntry, SourceEntry, StepEntry
from online.runs.glimpse import Glimpse
from online.runs.log import RunLog, read_run
from online.scores.evaluation import Evaluation, Panels
from online.scores.measures import MSE_SHARE, NEXT_FRAME, TRIPLETS_PER_SECOND
from online.scores.numbers import duration

HERO_BYTES = 500_000
PANEL_BYTES = 1_200_000
CRISP_PIXELS = 80
"""Frames up to this size are inlined pixel by pixel."""
_ATTENDED = (
    "Attention segments: at each place, the colour of the slot that read most of it as the frame "
    "was encoded, without a probe. "
)
SHOWN_RECORDINGS = 12
SHOWN_EVENTS = 200
"""The latest events; a run that resumes every minute for a week has ten thousand."""


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` into `run_dir` from what the run has left there so far.

    Raises RunError: there is no such directory, or it cannot be read; StoreError: the page cannot
    be written.
    """
    html = report_html(read_run(run_dir))
    target = Path(run_dir) / "report.html"
    write_page(html, target)
    return target


def report_html(run: RunLog) -> str:
    """The page; the same for the same run."""
    name = name_of(run.path.resolve())
    return page(
        f"{name} · SetCon",
        [
            _head(name, run),
            tiles(run),
            _hero(run),
            _scores(run),
            _curves(run),
            _panels(run.panels),
            _continual(run),
            _events(run.events),
            folded("Settings", run.settings) if run.settings else "",
            _commands(run),
            *(f'<p class="quiet">{text(note)}.</p>' for note in run.unreadable),
        ],
    )


def name_of(path: Path) -> str:
    """Name of a run: the folder's name; if that says nothing, preceded by its parent's."""
    return f"{path.parent.name}/{path.name}" if path.name == "run" else path.name


def _head(name: str, run: RunLog) -> str:
    recordings = recordings_of(run)
    shown = ", ".join(recordings[:SHOWN_RECORDINGS])
    if len(recordings) > SHOWN_RECORDINGS:
        shown += f" and {len(recordings) - SHOWN_RECORDINGS:,} more"
    parts = [f"<h1>{text(name)}</h1>"]
    if shown:
        parts.append(f'<p class="names">SetCon on {text(shown)}</p>')
    parts.append(f'<p class="verdict">{text(verdict(run))}</p>')
    alarms = [event for event in run.events if event.is_alarm]
    if alarms:
        last = alarms[-1]
        parts.append(f'<p class="alarm">Step {last.step:,}: {text(last.message)}</p>')
    return "<header>" + "".join(parts) + "</header>"


def recordings_of(run: RunLog) -> list[str]:
    """Names of what the run learns from."""
    if run.source is not None and run.source.recordings:
        return run.source.recordings
    names = run.panels.names if run.panels is not None else []
    return sorted({re.sub(r" \d+\.\d s$", "", name) for name in names})


def tiles(run: RunLog) -> str:
    """The headline numbers as markup, each with its baseline; empty where there are none."""
    shown = [*_score_tiles(run.evaluation)] if run.evaluation is not None else []
    if (recent := recent_top1(run.prequential)) is not None:
        note = (
            f"top-1 of {recent.candidates + 1}, up to step {recent.step:,}; last state copied "
            f"{recent.top1_copy:.2f}, untrained {recent.top1_untrained:.2f}"
        )
        shown.append(tile(NEXT_FRAME.name.capitalize(), f"{recent.top1:.2f}", note))
    if run.reached is not None and run.reached.step:
        took = f"in {duration(run.reached.seconds)}, probes included"
        note = "; ".join([took, *_computed(run), *_speed(run.steps[-1:])])
        shown.append(tile("Steps", _steps(run.reached.step, run.source), note))
    return f'<div class="tiles">{"".join(shown)}</div>' if shown else ""


def _steps(step: int, source: SourceEntry | None) -> str:
    """The steps taken, of those planned where some are left."""
    if source is None or source.steps is None or source.steps <= step:
        return f"{step:,}"
    return f"{step:,} of {source.steps:,}"


def _score_tiles(evaluation: Evaluation) -> Iterator[str]:
    both = (evaluation.trained, evaluation.untrained)
    decisive, whose = judged_by(evaluation), " of the segments" if evaluation.has_segments else ""
    for measure, title, scores in (
        (decisive, f"{decisive.title}{whose}", [judged(each, evaluation) for each in both]),
        (MSE_SHARE, MSE_SHARE.title, [each.current for each in both]),
    ):
        value, untrained = map(measure.value, scores)
        if value is not None and untrained is not None:
            note = f"untrained encoder {measure.shown(untrained)}"
            yield tile(title, measure.shown(value), note)


def _computed(run: RunLog) -> Iterator[str]:
    if run.source is not None and run.source.device:
        yield f"{run.source.precision} on {run.source.device}"


def _speed(latest: Sequence[StepEntry]) -> Iterator[str]:
    for entry in latest:
        if entry.triplets_per_second is not None:
            yield f"{entry.triplets_per_second:,.0f} {TRIPLETS_PER_SECOND.name}"
        if entry.samples_per_insert is not None:
            yield f"each clip seen {entry.samples_per_insert:.1f} times"


def _hero(run: RunLog) -> str:
    panels = run.panels
    if panels is None:
        return _newest(run.newest)
    return picture(
        draw_hero(panels, most=4),
        label="Held-out frames, their reconstructions, segments and slots",
        caption=hero_caption(panels),
        crisp=_is_small(panels),
        limit_bytes=HERO_BYTES,
    )


def _newest(newest: Glimpse | None) -> str:
    if newest is None:
        return ""
    return picture(
        draw_glimpse(newest),
        label="The newest frame, its segments, and what each slot reads of it",
        caption=(
            f"{newest.recording}, {newest.frame_seconds:.1f} s, as the model of step "
            f"{newest.step:,} saw it. Segments: the slot that each pixel counts most for, by "
            "attention. Slots: the part of the frame that each one reads. No probe has been made "
            "yet, and this footage may have been trained on."
        ),
        crisp=max(newest.frame.shape[:2]) <= CRISP_PIXELS,
        limit_bytes=HERO_BYTES,
    )


def _scores(run: RunLog) -> str:
    evaluation = run.evaluation
    if evaluation is None:
        return ""
    note = (
        f"Step {evaluation.step:,}. A probe fitted on frozen slots of {evaluation.frames_train:,} "
        f"frames and scored on {evaluation.frames_held_out:,} held-out ones"
    )
    if evaluation.frames_without_two_objects:
        note += (
            f"; {evaluation.frames_without_two_objects:,} of these show fewer than two objects "
            "and do not count for ARI and mBO"
        )
    if evaluation.frames_without_annotation:
        note += (
            f"; {evaluation.frames_without_annotation:,} have no annotation and do not count for "
            "them either"
        )
    return heading("Scores", f"{note}. {_time_taken(run, evaluation)}") + score_table(evaluation)


def _time_taken(run: RunLog, evaluation: Evaluation) -> str:
    beside = any(probe.beside and probe.step == evaluation.step for probe in run.probes)
    taken = f"Took {duration(evaluation.seconds)}{', alongside learning' if beside else ''}."
    spent = run.spent
    if spent is None or spent.probe_share is None or spent.checkpoint_share is None:
        return taken
    return (
        f"{taken} Of all the run's time, learning was paused for probes for "
        f"{spent.probe_share:.1%} and for checkpoints for {spent.checkpoint_share:.1%}."
    )


def _panels(panels: Panels | None) -> str:
    if panels is None:
        return ""
    attended = "" if panels.truth is not None else _ATTENDED
    return heading("What each slot holds") + picture(
        draw_panels(panels, most=8),
        label="All that the probe read from held-out frames, slot by slot",
        caption=(
            "Predicted: drawn from slots that were predicted from the two frames before. "
            "Untrained encoder: the best the same probe can do without learning. Drawn: a slot's "
            f"picture over grey. {attended}"
            "Alpha: its share of each pixel. Attention: where the slot looked, "
            "each map relative to its own maximum. A slot has one colour throughout; a "
            "ground-truth object has that of the slot that matches it best over all frames, one "
            "object per slot; a slot with more than half of all pixels is slate."
        ),
        crisp=_is_small(panels),
        limit_bytes=PANEL_BYTES,
    )


def _continual(run: RunLog) -> str:
    continual = run.continual
    if continual is None:
        return ""
    said = [f"Step {continual.steps[-1]:,}"]
    if run.reached is not None and run.reached.step > continual.steps[-1]:
        said[0] += f" (the run has since reached step {run.reached.step:,})"
    said += [f"{m.name} {m.shown(value)}" for m, value in continual.read_off if value is not None]
    return heading("What was kept", f"{'; '.join(said)}.") + picture(
        draw_heat_map(continual),
        label="Scores on each recording after each segment of the stream",
        caption=(
            "A row for each segment, in the order of the stream; a new probe for each cell, fitted "
            "on the training part of that column's recording. Framed: already learned from."
        ),
        crisp=False,
        limit_bytes=PANEL_BYTES,
    )


def _is_small(panels: Panels) -> bool:
    return max(panels.frames.shape[1:3]) <= CRISP_PIXELS


def _curves(run: RunLog) -> str:
    cards = curve_cards(run)
    if not cards:
        return ""
    note = "Over training steps. Bands reach from the least to the greatest value."
    return heading("Curves", note) + f'<div class="charts">{"".join(cards)}</div>'


def _events(events: Sequence[EventEntry]) -> str:
    if not events:
        return ""
    note = ""
    if len(events) > SHOWN_EVENTS:
        note = f"The latest {SHOWN_EVENTS} of {len(events):,}."
    items = "".join(_event(event) for event in events[-SHOWN_EVENTS:])
    return heading("Events", note) + f'<ol class="events">{items}</ol>'


def _event(event: EventEntry) -> str:
    kind = "hot" if event.is_alarm else "calm"
    return (
        f'<li class="{kind}"><span>step {event.step:,}, after {duration(event.seconds)}</span>'
        f"<span>{text(event.message)}</span></li>"
    )


def _commands(run: RunLog) -> str:
    source = run.source
    store = (
        shlex.quote(source.store)
        if source is not None and source.store and may_be_store(source.store)
        else "STORE"
    )
    path = shlex.quote(str(run.path))
    go_on = f"setcon train {store} --run {path}"
    if source is not None and source.command:
        go_on = shlex.join(source.command)
    note = "The first command continues the run from its last checkpoint"
    if (steps := _next_goal(run)) is not None:
        go_on += f" --steps {steps}"
        note += f", until step {steps:,}"
    return heading("Go on", f"{note}.") + command_block([go_on, f"setcon eval {path} {store}"])


def _next_goal(run: RunLog) -> int | None:
    """The step that the run aimed for, or twice that if it is there; None if unknown."""
    if run.source is None or run.source.steps is None or run.reached is None:
        return None
    return run.source.steps * (2 if run.reached.step >= run.source.steps else 1)
