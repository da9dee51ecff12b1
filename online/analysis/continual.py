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
from online.probing.encoded import ProbeFootage
from online.probing.evaluator import Evaluator, OnProgress
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
    score = _Scored(report, scores_each * len(recordings), _measure(trained, store, recordings))
    columns: list[_Column] = []
    for recording in recordings:
        only = glob.escape(recording)
        with opened_store(trained, store, recordings=only, holdout=holdout) as opened:
            column = _column(opened, rows, recording, score)
            share = opened.catalog.holdout
        if other is not None:
            with opened_store(other, store, recordings=only, holdout=share) as opened:
                evaluator, what = opened.evaluator, f"{recording} by the other run"
                footage = evaluator.footage()  # the same, which it must have held out as well
                found = score(evaluator, opened.trained.model, footage, what)
                column = replace(column, reference=found)
        columns.append(column)
    references = [column.reference for column in columns if column.reference is not None]
    return Continual(
        recordings=recordings,
        segments=[row.recording for row in rows],
        steps=[row.step for row in rows],
        measure=score.measure,
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


@dataclass(slots=True)
class _Scored:
    """What is scored, and progress over all that is to be scored."""

    report: OnProgress
    total: int
    measure: str
    begun: int = 0

    def __call__(
        self, evaluator: Evaluator, model: SetCon, footage: ProbeFootage, what: str
    ) -> float:
        """One number of one model on the held-out part of one recording."""
        number, self.begun = self.begun, self.begun + 1

        def progress(share: float) -> None:
            self.report(what, (number + share) / self.total)

        return _SCORES[self.measure](evaluator, model, footage, progress)


def _measure(trained: TrainedRun, store: str | Path, recordings: Sequence[str]) -> str:
    for recording in recordings:
        with opened_store(trained, store, recordings=glob.escape(recording)) as opened:
            if not all(each.has_masks for each in opened.catalog.recordings()):
                return _EXPLAINED
    return MBO.name if trained.model.config.finds_objects else FG_ARI.name


def _column(opened: OpenedRun, rows: Sequence[_Row], name: str, score: _Scored) -> _Column:
    model, evaluator = opened.trained.model, opened.evaluator
    footage = evaluator.footage()
    untrained = score(evaluator, evaluator.untrained, footage, f"{name} untrained")
    found: list[float] = []
    for row in rows:
        load_into(model, row.load(), where=row.where)
        found.append(score(evaluator, model, footage, f"{name} after {row.recording}"))
    return _Column(found, untrained)


def _fg_ari(
    evaluator: Evaluator, model: SetCon, footage: ProbeFootage, progress: Callable[[float], None]
) -> float:
    alphas = evaluator.scores(model, footage, progress).current.alphas
    assert alphas is not None  # all have masks
    return alphas.fg_ari


def _mbo(
    evaluator: Evaluator, model: SetCon, footage: ProbeFootage, progress: Callable[[float], None]
) -> float:
    """Of segments: pieces of everything have a high FG-ARI, which ignores the background."""
    found = evaluator.segments(model, footage, progress)
    assert found is not None
    return found.mbo


def _explained(
    evaluator: Evaluator, model: SetCon, footage: ProbeFootage, progress: Callable[[float], None]
) -> float:
    share = evaluator.scores(model, footage, progress).current.mse_share
    return 0.0 if share is None else 1 - share


_EXPLAINED = "explained"
_SCORES = {FG_ARI.name: _fg_ari, MBO.name: _mbo, _EXPLAINED: _explained}
