"""What a run that has kept its segments knows of each recording of its stream.

The probe is fitted on the training part of one recording and scored on its held-out part, each time
anew, with the weights of the end of each segment.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.durable import write_durably
from online.checkpoint import load_into
from online.errors import RunError
from online.evaluate import Progress
from online.run_directory import RunDirectory
from online.scores import EncoderScores, Evaluation
from online.segments import Segment, find_segments, load_segment
from online.trained_run import OpenedRun, load_run, opened_run
from online.transfer import Continual, to_json
from setcon.model import SetCon


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
    segments = find_segments(RunDirectory(run).segments)
    if not segments:
        raise RunError(
            f"{run}: has kept no segments; train with --set training.keep_segments=true, in the "
            "order of the stream"
        )
    other = load_run(against).model if against else None
    recordings = list(dict.fromkeys(segment.recording for segment in segments))
    columns: list[_Column] = []
    for recording in recordings:
        only = glob.escape(recording)
        with opened_run(run, store, recordings=only, holdout=holdout) as opened:
            columns.append(
                _column(opened, segments, other, _Part(report, len(columns), recordings))
            )
    has_masks = all(column.untrained.current.alphas is not None for column in columns)
    score = _fg_ari if has_masks else _explained
    result = Continual(
        recordings=recordings,
        segments=[segment.recording for segment in segments],
        steps=[segment.step for segment in segments],
        measure="FG-ARI" if has_masks else "explained",
        scores=[[score(c.segments[i]) for c in columns] for i in range(len(segments))],
        untrained=[score(c.untrained) for c in columns],
        reference=[score(c.reference) for c in columns if c.reference] if other else None,
    )
    write_durably(RunDirectory(run).continual_path, to_json(result))
    return result


@dataclass(frozen=True, slots=True)
class _Column:
    """Scores on one recording."""

    segments: list[EncoderScores]
    untrained: EncoderScores
    reference: EncoderScores | None


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


def _column(
    opened: OpenedRun, segments: Sequence[Segment], other: SetCon | None, progress: _Part
) -> _Column:
    model, evaluator = opened.trained.model, opened.evaluator
    count = len(segments) + (other is not None)
    found: list[Evaluation] = []
    for segment in segments:
        progress(f"after {segment.recording}", len(found) / count)
        load_into(model, load_segment(segment), where=segment.path)
        found.append(evaluator.evaluate(model, step=segment.step).evaluation)
    reference = None
    if other is not None:
        progress("by the other run", len(found) / count)
        reference = evaluator.evaluate(other, step=segments[-1].step).evaluation.trained
    return _Column([each.trained for each in found], found[0].untrained, reference)


def _fg_ari(scores: EncoderScores) -> float:
    assert scores.current.alphas is not None
    return scores.current.alphas.fg_ari


def _explained(scores: EncoderScores) -> float:
    share = scores.current.mse_share
    return 0.0 if share is None else 1 - share
