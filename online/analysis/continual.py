"""What a run that kept its segments knows of each recording of its stream.

The probe is fitted on the training part of one recording and scored on its held-out part, each time
again, with the weights of the end of each segment.
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
from online.analysis.opened import OpenedRun, TrainedRun, load_run, opened_store
from online.errors import RunError
from online.probing.evaluator import OnProgress
from online.runs.directory import RunDirectory
from online.runs.segments import find_segments, load_segment
from online.runs.weights import load_into
from online.scores.evaluation import EncoderScores
from online.scores.matrix import Continual, to_json
from online.scores.measures import FG_ARI, MBO


def evaluate_continual(
    run: str | Path,
    store: str | Path,
    *,
    against: str | Path | None = None,
    holdout: float | None = None,
    progress: OnProgress | None = None,
) -> Continual:
    """Probe what a run has kept of each segment on every recording of its stream.

    Raises RunError: the run has kept no segments, or the store lacks one of its recordings.
    IngestError, OnlineError: otherwise, in one line.
    """
    trained = load_run(run)
    rows = _rows(trained)
    other = None if against is None else load_run(against)  # before an hour of probes
    recordings = list(dict.fromkeys(row.recording for row in rows))
    probes_each = len(rows) + (1 if other is None else 2)  # with the untrained, and the other run
    report = progress or (lambda what, share: None)
    probes = _Probes(report, probes_each * len(recordings))
    columns: list[_Column] = []
    for recording in recordings:
        only = glob.escape(recording)
        with opened_store(trained, store, recordings=only, holdout=holdout) as opened:
            column = _column(opened, rows, recording, probes)
            share = opened.catalog.holdout
        if other is not None:
            with opened_store(other, store, recordings=only, holdout=share) as opened:
                column = replace(column, reference=_reference(opened, recording, probes))
        columns.append(column)
    return _matrix(recordings, rows, columns, has_segments=trained.model.config.finds_objects)


def keep_continual(run: Path, continual: Continual) -> None:
    """Save the matrix in the run, for its report; StoreError if it cannot be written."""
    path = RunDirectory(run).continual_path
    with writing(path):
        write_whole(path, to_json(continual))


@dataclass(frozen=True, slots=True)
class _Row:
    """Weights at the end of a segment, or at the newest checkpoint within one."""

    recording: str
    step: int
    load: Callable[[], dict[str, Tensor]]
    where: Path


def _rows(trained: TrainedRun) -> list[_Row]:
    """All segments that have ended, and the newest checkpoint if it comes after them."""
    at = trained.checkpoint.run.get("segments")
    if not at:
        raise RunError(
            f"{trained.path}: has kept no segments; train with --set training.keep_segments=true "
            "--set stream.order=stream"
        )
    rows = [
        _Row(segment.recording, segment.step, partial(load_segment, segment), segment.path)
        for segment in find_segments(RunDirectory(trained.path).segments)
    ]
    step = trained.checkpoint.step
    if at["open"] and (not rows or step > rows[-1].step):
        newest = trained.checkpoint.model
        rows.append(_Row(at["open"][-1], step, lambda: newest, trained.where))
    if not rows:
        raise RunError(f"{trained.path}: has learned from nothing yet; train it first")
    return rows


@dataclass(frozen=True, slots=True)
class _Column:
    """Scores on one recording."""

    segments: list[EncoderScores]
    untrained: EncoderScores
    reference: EncoderScores | None = None


@dataclass(slots=True)
class _Probes:
    """Progress over all probes that are to be fitted."""

    report: OnProgress
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


def _reference(opened: OpenedRun, name: str, probes: _Probes) -> EncoderScores:
    """The other run on the same held-out footage, which it must have held out as well."""
    evaluator, what = opened.evaluator, probes.next(f"{name} by the other run")
    return evaluator.scores(opened.trained.model, evaluator.footage(), what)


def _matrix(
    recordings: list[str],
    rows: Sequence[_Row],
    columns: Sequence[_Column],
    *,
    has_segments: bool,
) -> Continual:
    has_masks = all(column.untrained.current.alphas is not None for column in columns)
    score, measure = _explained, "explained"
    if has_masks:
        score, measure = (_mbo, MBO.name) if has_segments else (_fg_ari, FG_ARI.name)
    references = [column.reference for column in columns if column.reference is not None]
    return Continual(
        recordings=recordings,
        segments=[row.recording for row in rows],
        steps=[row.step for row in rows],
        measure=measure,
        scores=[[score(column.segments[i]) for column in columns] for i in range(len(rows))],
        untrained=[score(column.untrained) for column in columns],
        reference=[score(reference) for reference in references] or None,
    )


def _fg_ari(scores: EncoderScores) -> float:
    assert scores.current.alphas is not None
    return scores.current.alphas.fg_ari


def _mbo(scores: EncoderScores) -> float:
    """Of segments: pieces of everything have a high FG-ARI, which ignores the background."""
    assert scores.attention is not None
    return scores.attention.mbo


def _explained(scores: EncoderScores) -> float:
    share = scores.current.mse_share
    return 0.0 if share is None else 1 - share
