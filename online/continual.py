"""What a run that has kept its segments knows of each recording of its stream.

The probe is fitted on the training part of one recording and scored on its held-out part, each time
anew, with the weights of the end of each segment.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from ingest.durable import write_durably
from online.checkpoint import load_into, newest_readable
from online.errors import RunError
from online.evaluate import Progress
from online.run_directory import RunDirectory
from online.scores import EncoderScores, Evaluation
from online.segments import find_segments, load_segment
from online.trained_run import OpenedRun, opened_run
from online.transfer import Continual, to_json


def evaluate_continual(
    run: Path,
    store: Path,
    *,
    against: Path | None = None,
    holdout: float | None = None,
    progress: Progress | None = None,
) -> Continual:
    """Probe what a run has kept of each segment on every recording of its stream.

    The result is also kept in the run, for its report.

    Raises:
        RunError: the run has kept no segments, or the store lacks one of its recordings.
        IngestError, OnlineError: otherwise, in one line.
    """
    report = progress or (lambda what, share: None)
    rows = _rows(run)
    recordings = list(dict.fromkeys(row.recording for row in rows))
    columns: list[_Column] = []
    for recording in recordings:
        only = glob.escape(recording)
        part = _Part(report, len(columns), recordings)
        with opened_run(run, store, recordings=only, holdout=holdout) as opened:
            column = _column(opened, rows, part)
            if against is not None:
                part("by the other run", 1.0)
                column = replace(column, reference=_reference(against, store, only, opened))
        columns.append(column)
    has_masks = all(column.untrained.current.alphas is not None for column in columns)
    score = _fg_ari if has_masks else _explained
    result = Continual(
        recordings=recordings,
        segments=[row.recording for row in rows],
        steps=[row.step for row in rows],
        measure="FG-ARI" if has_masks else "explained",
        scores=[[score(c.segments[i]) for c in columns] for i in range(len(rows))],
        untrained=[score(c.untrained) for c in columns],
        reference=[score(c.reference) for c in columns if c.reference] if against else None,
    )
    write_durably(RunDirectory(run).continual_path, to_json(result))
    return result


@dataclass(frozen=True, slots=True)
class _Row:
    """Weights of the end of a segment, or of where the run stands in one."""

    recording: str
    step: int
    load: Callable[[], dict[str, Tensor]]
    where: Path


def _rows(run: Path) -> list[_Row]:
    """All segments that have ended, and the newest checkpoint if it is behind them."""
    directory = RunDirectory(run)
    newest = newest_readable(directory.checkpoints)
    at = newest.checkpoint.run.get("segments")
    if not at:
        raise RunError(
            f"{run}: has kept no segments; train with --set training.keep_segments=true --set "
            "stream.order=stream"
        )
    rows = [
        _Row(segment.recording, segment.step, partial(load_segment, segment), segment.path)
        for segment in find_segments(directory.segments)
    ]
    step = newest.checkpoint.step
    if at["open"] and (not rows or step > rows[-1].step):
        rows.append(_Row(at["open"][-1], step, lambda: newest.checkpoint.model, newest.path))
    if not rows:
        raise RunError(f"{run}: has learned from nothing yet; train it first")
    return rows


@dataclass(frozen=True, slots=True)
class _Column:
    """Scores on one recording."""

    segments: list[EncoderScores]
    untrained: EncoderScores
    reference: EncoderScores | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """Progress of one recording among all."""

    report: Progress
    number: int
    recordings: Sequence[str]

    def __call__(self, what: str, share: float) -> None:
        self.report(
            f"{self.recordings[self.number]} {what}", (self.number + share) / len(self.recordings)
        )


def _column(opened: OpenedRun, rows: Sequence[_Row], progress: _Part) -> _Column:
    model = opened.trained.model
    found: list[Evaluation] = []
    for row in rows:
        progress(f"after {row.recording}", len(found) / len(rows))
        load_into(model, row.load(), where=row.where)
        found.append(opened.evaluator.evaluate(model, step=row.step).evaluation)
    return _Column([each.trained for each in found], found[0].untrained)


def _reference(against: Path, store: Path, only: str, opened: OpenedRun) -> EncoderScores:
    """The other run on the same held-out footage, which it must have held out as well."""
    share = opened.catalog.holdout
    with opened_run(against, store, recordings=only, holdout=share) as other:
        step = other.trained.checkpoint.step
        return other.evaluator.evaluate(other.trained.model, step=step).evaluation.trained


def _fg_ari(scores: EncoderScores) -> float:
    assert scores.current.alphas is not None
    return scores.current.alphas.fg_ari


def _explained(scores: EncoderScores) -> float:
    share = scores.current.mse_share
    return 0.0 if share is None else 1 - share
