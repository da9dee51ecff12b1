"""Runs as text: the state of servers and trainers, and what probes have found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from online.scores.numbers import brief, clock, mean_text, share
from terminal.recordings import counted

if TYPE_CHECKING:
    from online.queue.server import ServerCounters
    from online.reports.groups import Group
    from online.scores.evaluation import Evaluation
    from online.scores.matrix import Continual
    from online.session.clock import Spent
    from online.session.outcome import Outcome
    from online.session.status import Status

T = TypeVar("T")

SINGLE_RUNS = 4
"""So many columns of single runs a terminal has room for."""
NOTHING_NEW_STEPS = 100
"""Steps without new footage after which the line says when the last was seen."""


def server_parts(counters: ServerCounters) -> list[str]:
    """The state of a server, as parts of a progress line."""
    return [
        counted(counters.connected, "trainer"),
        counted(counters.clips, "clip"),
        f"{counters.clip_bytes / 1e6:.1f} MB sent",
        f"{counters.bytes_per_second / 1e6:.1f} MB/s",
        f"{counters.credit_bytes / 1e6:.1f} MB credit",
        f"{counters.lost} lost",
        f"{counters.silent} hung",
        f"{counters.rejected} rejected",
        f"{counters.fetches} fetches",
        counted(counters.sessions, "session"),
    ]


def status_parts(status: Status) -> list[str]:
    """The state of a run, as parts of a progress line; the most important first."""
    from online.scores.measures import LOSS, TOP1, TRIPLETS_PER_SECOND

    done = "" if status.share is None else f" {status.share:.0%}"
    eta = None if status.activity == "waiting for data" else status.eta_seconds
    # while nothing is learned, these are old
    top1, new_top1, loss, rate = (
        (status.top1, status.prequential_top1, status.loss, status.triplets_per_second)
        if status.learns
        else (None, None, None, None)
    )
    is_old = status.step - status.prequential_step > NOTHING_NEW_STEPS
    until = f" until step {status.prequential_step}" if is_old else ""
    probes = f"probes {status.probe_share:.0%}" if status.probe_share >= 0.005 else ""
    return [
        f"{status.activity}{done}",
        f"step {status.step}/{status.steps}",
        *_known(eta, lambda seconds: f"ETA {clock(seconds)}"),
        *_known(top1, lambda share: f"{TOP1.name} {brief(share)}"),
        *_known(new_top1, lambda share: f"new footage {brief(share)}{until}"),
        *_known(status.delay_seconds, lambda seconds: f"{seconds:.1f} s behind"),
        *_known(status.skipped or None, lambda clips: f"{clips} skipped"),
        *_known(status.reconnects or None, lambda times: counted(times, "reconnect")),
        *_known(status.damaged or None, lambda messages: f"{messages} damaged"),
        *_known(status.discarded or None, lambda messages: f"{messages} discarded"),
        *_known(loss, lambda nats: f"{LOSS.name} {nats:.2f}"),
        *_known(rate or None, lambda speed: f"{speed:.0f} {TRIPLETS_PER_SECOND.name}"),
        *_known(status.samples_per_insert or None, lambda times: f"clips seen {times:.0f}x"),
        *_known(status.queued_bytes or None, lambda size: f"{size / 1e6:.1f} MB queued"),
        *_known(status.beside or probes or None, str),
    ]


def _known(value: T | None, text: Callable[[T], str]) -> list[str]:
    """The text of a value; nothing where there is none."""
    return [] if value is None else [text(value)]


def spent_text(spent: Spent) -> str:
    """How a run spent its time."""
    return (
        f"took {clock(spent.seconds)}: learning was paused for probes for "
        f"{spent.probe_share:.1%} of it, for checkpoints for {spent.checkpoint_share:.1%}"
    )


def received_text(outcome: Outcome) -> str:
    """What was received from servers, and what was done with it."""
    received, clips = outcome.received, outcome.clips
    parts = [
        f"{counted(received.clips, 'clip')} received ({received.clip_bytes / 1e6:.1f} MB)",
        counted(received.reconnects, "reconnect"),
        f"{received.damaged} damaged",
        f"{received.stale} discarded",
    ]
    return f"{', '.join(parts)}; in all {clips.inserted} inserted, {clips.skipped} skipped"


def evaluation_text(evaluation: Evaluation) -> str:
    """The table of scores, a row for each part, and the scores of the encoder."""
    from online.scores.measures import measures
    from online.scores.parts import parts

    shown = [
        measure
        for measure in measures("terminal", "drawing", "masks")
        if any(measure.of_part(evaluation, part) is not None for part in parts("terminal"))
    ]
    table = [["", *(measure.name for measure in shown)]]
    for part in parts("terminal"):
        if part.drawing(evaluation) is not None or part.masks(evaluation) is not None:
            values = [measure.of_part(evaluation, part) for measure in shown]
            cells = [m.shown(value) for m, value in zip(shown, values, strict=True)]
            table.append([part.name, *cells])
    head = f"held-out footage: {evaluation.frames_held_out} frames, step {evaluation.step}"
    trained, untrained = evaluation.trained, evaluation.untrained
    of_encoder = [
        f"{m.name}: {m.text(trained)}; untrained {m.text(untrained)}"
        for m in measures("terminal", "encoder")
        if m.value(trained) is not None and m.value(untrained) is not None
    ]
    return "\n".join([head, *_right_aligned(table), *of_encoder])


def comparison_text(groups: Sequence[Group]) -> str:
    """The table of scores for a terminal, a column for each group.

    A few runs that are all seeds of one setting also have a column each. Below several groups
    stands what each is.
    """
    from online.reports.compare import rows

    seeds = groups[0].runs if len(groups) == 1 else []
    singles = seeds if 1 < len(seeds) <= SINGLE_RUNS else []
    means = [f"mean of {len(seeds)}"] if singles else [f"{g.name} ({len(g.runs)})" for g in groups]
    table = [["", *(str(run.path) for run in singles), *means]]
    for row in rows(groups):
        each = [row.shown(value) for value in row.each(groups[0])] if singles else []
        cells = [mean_text(row.values(group), row.shown) for group in groups]
        table.append([row.name, *each, *cells])
    widths = _widths(table)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    if len(groups) > 1:
        lines += [f"{g.lead}: {', '.join(str(run.path) for run in g.runs)}" for g in groups]
    return "\n".join(lines)


def continual_text(continual: Continual) -> str:
    """The matrix of a run over a stream of segments, and the numbers derived from it."""
    table = [["", *continual.recordings]]
    table += [[name, *map(share, scores)] for name, scores in continual.rows]
    lines = [f"{continual.measure} on held-out frames", *_right_aligned(table)]
    known = [(measure, value) for measure, value in continual.read_off if value is not None]
    width = max(len(measure.name) for measure, _ in known)
    lines += [f"{m.name:{width}}  {m.shown(value):>6}" for m, value in known]
    return "\n".join(lines)


def _right_aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first column holds names."""
    first, *widths = _widths(table)
    return [
        f"{name:{first}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths, strict=True))
        for name, *cells in table
    ]


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]
