"""What a run that kept its segments knows of each recording of its stream.

The weights of the end of each segment are scored on the held-out part of each recording: the
segments of a model that finds objects, and of others a probe that is fitted each time again on the
training part.
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
from online.probing.evaluator import Evaluator, OnProgress
from online.probing.scoring import shows_objects
from online.runs.directory import RunDirectory
from online.runs.segments import find_segments, load_segment
from online.runs.weights import load_into
from online.scores.matrix import Continual, to_json
from online.scores.measures import FG_ARI, MBO
from setcon.model import SetCon


def evaluate_continual(
    run: str | Path,
    store: str | Path,
    *,
    against: str | Path | None = None,
    holdout: float | None = None,
    progress: OnProgress | None = None,
) -> Continual:
    """Score what a run has kept of each segment on every recording of its stream.

    Raises RunError: the run has kept no segments, or the store lacks one of its recordings.
    IngestError, OnlineError: otherwise, in one line.
    """
    trained = load_run(run)
    rows = _rows(trained)
    other = None if against is None else load_run(against)  # before an hour of probes
    recordings = list(dict.fromkeys(row.recording for row in rows))
    scores_each = len(rows) + (1 if other is None else 2)  # with the untrained, and the other run
    report = progress or (lambda what, share: None)
    scores = _Scores(report, scores_each * len(recordings), _measure(trained, store, recordings))
    columns: list[_Column] = []
    for recording in recordings:
        only = glob.escape(recording)
        with opened_store(trained, store, recordings=only, holdout=holdout) as opened:
            column = _column(opened, rows, recording, scores)
            share = opened.catalog.holdout
        if other is not None:
            with opened_store(other, store, recordings=only, holdout=share) as opened:
                # on the same footage, which it must have held out as well
                score = scores.on(opened.evaluator)
                found = score(opened.trained.model, f"{recording} by the other run")
                column = replace(column, reference=found)
        columns.append(column)
    references = [column.reference for column in columns if column.reference is not None]
    return Continual(
        recordings=recordings,
        segments=[row.recording for row in rows],
        steps=[row.step for row in rows],
        measure=scores.measure,
        scores=[[column.segments[i] for column in columns] for i in range(len(rows))],
        untrained=[column.untrained for column in columns],
        reference=references or None,
    )


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

    segments: list[float]
    untrained: float
    reference: float | None = None


_Score = Callable[[SetCon, Callable[[float], None]], float]
"""One number of a model on the held-out part of one recording, telling how far it is."""


@dataclass(slots=True)
class _Scores:
    """What is scored, and progress over all that is to be scored."""

    report: OnProgress
    total: int
    measure: str
    begun: int = 0

    def on(self, evaluator: Evaluator) -> Callable[[SetCon, str], float]:
        """Scores models, which are called so, on one recording; its footage is read once."""
        score = _MEASURES[self.measure](evaluator)

        def reported(model: SetCon, what: str) -> float:
            number, self.begun = self.begun, self.begun + 1
            return score(model, lambda share: self.report(what, (number + share) / self.total))

        return reported


def _measure(trained: TrainedRun, store: str | Path, recordings: Sequence[str]) -> str:
    """What all recordings have: masks of two objects in a frame, or only pictures."""
    for recording in recordings:
        with opened_store(trained, store, recordings=glob.escape(recording)) as opened:
            if not shows_objects(opened.evaluator.held_out()):
                return _EXPLAINED
    return MBO.name if trained.model.config.finds_objects else FG_ARI.name


def _column(opened: OpenedRun, rows: Sequence[_Row], name: str, scores: _Scores) -> _Column:
    model, score = opened.trained.model, scores.on(opened.evaluator)
    untrained = score(opened.evaluator.untrained, f"{name} untrained")
    found: list[float] = []
    for row in rows:
        load_into(model, row.load(), where=row.where)
        found.append(score(model, f"{name} after {row.recording}"))
    return _Column(found, untrained)


def _fg_ari(evaluator: Evaluator) -> _Score:
    footage = evaluator.footage()

    def score(model: SetCon, progress: Callable[[float], None]) -> float:
        alphas = evaluator.scores(model, footage, progress).current.alphas
        assert alphas is not None  # it shows objects
        return alphas.fg_ari

    return score


def _mbo(evaluator: Evaluator) -> _Score:
    """Of segments: pieces of everything have a high FG-ARI, which ignores the background."""
    held_out = evaluator.held_out()

    def score(model: SetCon, progress: Callable[[float], None]) -> float:
        segments = evaluator.segments(model, held_out, progress)
        assert segments is not None  # it shows objects
        return segments.mbo

    return score


def _explained(evaluator: Evaluator) -> _Score:
    footage = evaluator.footage()

    def score(model: SetCon, progress: Callable[[float], None]) -> float:
        share = evaluator.scores(model, footage, progress).current.mse_share
        return 0.0 if share is None else 1 - share

    return score


_EXPLAINED = "explained"
_MEASURES = {FG_ARI.name: _fg_ari, MBO.name: _mbo, _EXPLAINED: _explained}
