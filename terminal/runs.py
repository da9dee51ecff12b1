"""Runs in words: how a server and a trainer stand, and what probes have found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from terminal.recordings import counted

if TYPE_CHECKING:
    from online.queue.server import ServerCounters
    from online.reports.compare import Group
    from online.scores.evaluation import Evaluation, MaskScores, ReconstructionScores
    from online.scores.matrix import Continual
    from online.session.clock import Spent
    from online.session.loop import Outcome
    from online.session.status import Status

NOTHING_NEW_STEPS = 100
"""Since the last new footage, after which it is said how long ago that was."""


def server_parts(counters: ServerCounters) -> list[str]:
    """How a server stands."""
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
    """How a run stands, what matters most first."""
    share = "" if status.share is None else f" {status.share:.0%}"
    parts = [f"{status.activity}{share}", f"step {status.step}/{status.steps}"]
    if status.eta_seconds is not None and status.activity == "learning":
        parts.append(f"ETA {_clock_text(status.eta_seconds)}")
    if status.top1 is not None and status.learns:
        parts.append(f"top-1 {_hundredths(status.top1)}")
    if status.prequential_top1 is not None and status.learns:
        old = status.step - status.prequential_step > NOTHING_NEW_STEPS
        until = f" until step {status.prequential_step}" if old else ""
        parts.append(f"new footage {_hundredths(status.prequential_top1)}{until}")
    if status.delay_seconds is not None:
        parts.append(f"{status.delay_seconds:.1f} s behind")
    if status.skipped:
        parts.append(f"{status.skipped} skipped")
    if status.reconnects:
        parts.append(counted(status.reconnects, "reconnect"))
    if status.damaged:
        parts.append(f"{status.damaged} damaged")
    if status.discarded:
        parts.append(f"{status.discarded} discarded")
    if status.loss is not None and status.learns:
        parts.append(f"loss {status.loss:.2f}")
    if status.triplets_per_second and status.learns:
        parts.append(f"{status.triplets_per_second:.0f} triplets/s")
    if status.samples_per_insert:
        parts.append(f"clips seen {status.samples_per_insert:.0f}x")
    if status.queued_bytes:
        parts.append(f"{status.queued_bytes / 1e6:.1f} MB queued")
    if status.beside:
        parts.append(status.beside)
    elif status.probe_share >= 0.005:
        parts.append(f"probes {status.probe_share:.0%}")
    return parts


def spent_text(spent: Spent) -> str:
    """What a run's time went into."""
    return (
        f"took {_clock_text(spent.seconds)}: learning stood still for probes for "
        f"{spent.probe_share:.1%} of it, for checkpoints for {spent.checkpoint_share:.1%}"
    )


def received_text(outcome: Outcome) -> str:
    """What came from servers, and what became of it."""
    received, clips = outcome.received, outcome.clips
    parts = [
        f"{counted(received.clips, 'clip')} received ({received.clip_bytes / 1e6:.1f} MB)",
        counted(received.reconnects, "reconnect"),
        f"{received.damaged} damaged",
        f"{received.stale} discarded",
    ]
    return f"{', '.join(parts)}; in all {clips.inserted} inserted, {clips.skipped} skipped"


def evaluation_text(evaluation: Evaluation) -> str:
    """The table of scores: trained, untrained, and what needs no model."""
    from online.reports.tables import placed

    trained, untrained = evaluation.trained, evaluation.untrained
    mean = (f"{evaluation.mean_frame_mse:.5f}", "1.000", _decibels(evaluation.mean_frame_psnr))
    rows = [
        ("", "MSE", "of mean", "PSNR", "FG-ARI", "ARI", "mBO"),
        _score_row("trained    s_t", trained.current),
        _score_row("trained    p_t", trained.predicted),
        *([_score_row("copied as p_t", evaluation.copied)] if evaluation.copied else []),
        _score_row("untrained  s_t", untrained.current),
        _score_row("untrained  p_t", untrained.predicted),
        ("mean frame", *mean),
    ]
    if (simple := evaluation.without_model) is not None:
        nothing_drawn = ("-",) * 3
        rows.append(("image in blocks", *nothing_drawn, *_mask_cells(simple.blocks)))
        rows.append(("colours alone", *nothing_drawn, *_mask_cells(simple.colours)))
    head = f"held-out footage: {evaluation.frames_held_out} frames, step {evaluation.step}"
    lines = [f"{row[0]:<16}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
    if trained.places and untrained.places:
        told = f"{placed(trained.places)}; untrained {placed(untrained.places)}"
        lines.append(f"things whose place one slot alone tells: {told}")
    return "\n".join([head, *(line.rstrip() for line in lines)])


def comparison_text(groups: Sequence[Group]) -> str:
    """The table of scores for a terminal, a column for each group."""
    from online.reports.compare import mean_text, measures

    rows = [["", *(f"{group.name} ({len(group.runs)})" for group in groups)]]
    for measure in measures(groups):
        cells = [mean_text(group.values(measure), measure.decimals) for group in groups]
        rows.append([measure.name, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def continual_text(continual: Continual) -> str:
    """The matrix of a run over a stream of segments, and what is read off it."""
    rows = continual.rows
    wide = max(len(name) for name, _ in rows)
    columns = [max(9, len(name) + 2) for name in continual.recordings]
    head = "".join(f"{n:>{w}}" for n, w in zip(continual.recordings, columns, strict=True))
    lines = [f"{continual.measure} on held-out frames", f"{'':{wide}}{head}"]
    for name, scores in rows:
        lines.append(
            f"{name:{wide}}" + "".join(f"{s:{w}.3f}" for s, w in zip(scores, columns, strict=True))
        )
    for what, value in (
        ("average at the end", continual.final),
        ("forgotten since the best", continual.forgetting),
        ("backward transfer", continual.backward_transfer),
        ("forward transfer", continual.forward_transfer),
        ("lowest on the way", continual.lowest),
        ("of the other run's gain", continual.reached),
    ):
        if value is not None:
            lines.append(f"{what:26}{value:7.3f}")
    return "\n".join(lines)


def _score_row(name: str, part: ReconstructionScores) -> tuple[str, ...]:
    drawn = (f"{part.mse:.5f}", _three(part.mse_share), _decibels(part.psnr))
    return (name, *drawn, *_mask_cells(part.alphas))


def _mask_cells(masks: MaskScores | None) -> tuple[str, ...]:
    if masks is None:
        return ("-",) * 3
    return tuple(f"{value:.3f}" for value in (masks.fg_ari, masks.ari, masks.mbo))


def _clock_text(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _hundredths(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
