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

from ingest.disk.durable import write_whole
from ingest.store.output import writing
from online.analysis.opened import OpenedRun, opened_run
from online.errors import RunError
from online.probing.evaluator import Progress
from online.runs.checkpoint import load_into, newest_readable
from online.runs.directory import RunDirectory
from online.runs.segments import find_segments, load_segment
from online.scores.evaluation import EncoderScores
from online.scores.matrix import Continual, to_json


def evaluate_continual(
    run: Path,
    store: Path,
    *,
    against: Path | None = None,
    holdout: float | None = None,
    progress: Progress | None = None,
) -> Continual:
    """Probe what a run has kept of each segment on every recording of its stream.

    Raises RunError: the run has kept no segments, or the store lacks one of its recordings.
    IngestError, OnlineError: otherwise, in one line.
    """
    report = progress or (lambda what, share: None)
    rows = _rows(run)
    if against is not None:
        newest_readable(RunDirectory(against).checkpoints)  # before an hour of probes
    recordings = list(dict.fromkeys(row.recording for row in rows))
    columns: list[_Column] = []
    each = len(rows) + 1 + (against is not None)
    probes = _Probes(report, each * len(recordings))
    for recording in recordings:
        only = glob.escape(recording)
        with opened_run(run, store, recordings=only, holdout=holdout) as opened:
            column = _column(opened, rows, recording, probes)
            if against is not None:
                reference = _reference(against, store, recording, opened, probes)
                column = replace(column, reference=reference)
        columns.append(column)
    has_masks = all(column.untrained.current.alphas is not None for column in columns)
    score = _fg_ari if has_masks else _explained
    return Continual(
        recordings=recordings,
        segments=[row.recording for row in rows],
        steps=[row.step for row in rows],
        measure="FG-ARI" if has_masks else "explained",
        scores=[[score(c.segments[i]) for c in columns] for i in range(len(rows))],
        untrained=[score(c.untrained) for c in columns],
        reference=[score(c.reference) for c in columns if c.reference] if against else None,
    )


def keep_continual(run: Path, continual: Continual) -> None:
    """Put it into the run, for its report; StoreError where that cannot be written."""
    path = RunDirectory(run).continual_path
    with writing(path):
        write_whole(path, to_json(continual))


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


@dataclass(slots=True)
class _Probes:
    """Progress over all that are to be fitted."""

    report: Progress
    total: int
    begun: int = 0

    def next(self, what: str) -> Callable[[float], None]:
        """What the next one calls with the share of itself that is done."""
        number, self.begun = self.begun, self.begun + 1
        return lambda share: self.report(what, (number + share) / self.total)


def _column(opened: OpenedRun, rows: Sequence[_Row], name: str, probes: _Probes) -> _Column:
    model, evaluator = opened.trained.model, opened.evaluator
    footage = evaluator.footage()
    what = probes.next(f"{name} untrained")
    untrained = evaluator.scores(evaluator.untrained, footage, what)
    found: list[EncoderScores] = []
    for row in rows:
        load_into(model, row.load(), where=row.where)
        what = probes.next(f"{name} after {row.recording}")
        found.append(evaluator.scores(model, footage, what))
    return _Column(found, untrained)


def _reference(
    against: Path, store: Path, name: str, opened: OpenedRun, probes: _Probes
) -> EncoderScores:
    """The other run on the same held-out footage, which it must have held out as well."""
    only, share = glob.escape(name), opened.catalog.holdout
    with opened_run(against, store, recordings=only, holdout=share) as other:
        evaluator, what = other.evaluator, probes.next(f"{name} by the other run")
        return evaluator.scores(other.trained.model, evaluator.footage(), what)


def _fg_ari(scores: EncoderScores) -> float:
    assert scores.current.alphas is not None
    return scores.current.alphas.fg_ari


def _explained(scores: EncoderScores) -> float:
    share = scores.current.mse_share
    return 0.0 if share is None else 1 - share
