"""What happens in a run, written down: metrics.jsonl, and TensorBoard where it is installed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from online.clips.holdout import RecordingSummary
from online.reports.figures import draw_hero
from online.runs.directory import RunDirectory
from online.runs.entries import (
    Entry,
    EventEntry,
    PrequentialEntry,
    ProbeEntry,
    SourceEntry,
    StepEntry,
)
from online.runs.glimpse import DAMAGE
from online.runs.tensorboard import (
    Points,
    TensorBoard,
    evaluation_points,
    prequential_points,
    step_points,
)
from online.scores.collapse import collapse_alarm, early_note
from online.scores.evaluation import Evaluation, load_panels
from online.session.state import RunState
from online.training.prequential import PrequentialScore
from online.training.result import StepResult

PICTURE_FRAMES = 4
"""In a picture for TensorBoard."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a run's footage comes from, for the report."""

    store: str = ""
    """Path of the store, or addresses of the servers."""
    command: Sequence[str] = ()
    """Words of a command line that continues the run, if `--steps` is put after them."""


class Journal:
    """Lines and curves of one start of a run, each at the step that the run has reached."""

    def __init__(self, directory: RunDirectory, state: RunState) -> None:
        self.directory = directory
        self.state = state
        self._board: TensorBoard | None = None

    def begin(self) -> None:
        """Go on after the state's step: lines of later steps are dropped."""
        self.directory.cut_back(self.state.step)
        self._board = self.directory.open_curves(after_step=self.state.step)

    def step(self, result: StepResult, learning_rate: float) -> None:
        """An optimizer step, and the rate that it was taken with."""
        clock, clips = self.state.clock, self.state.counters
        received = self.state.received
        entry = StepEntry(
            step=self.state.step,
            seconds=clock.seconds,
            probe_share=clock.spent.probe_share,
            checkpoint_share=clock.spent.checkpoint_share,
            loss=result.loss,
            exclusivity=result.exclusivity,
            foreground=msgspec.UNSET if result.foreground is None else result.foreground,
            top1=result.top1,
            chance_loss=result.chance,
            grad_norm=result.grad_norm,
            learning_rate=learning_rate,
            triplets_per_second=clock.triplets_per_second,
            wait_share=clock.wait_share,
            delay_seconds=clock.delay_seconds,
            clips_inserted=clips.inserted,
            clips_skipped=clips.skipped,
            samples_per_insert=self.state.samples_per_insert,
            clips_received=received.clips,
            reconnects=received.reconnects,
            discarded_messages=received.stale,
            damaged_clips=received.damaged,
            epoch=self.state.epoch,
        )
        self._log(entry, step_points(entry))

    def prequential(self, score: PrequentialScore) -> None:
        """The score of a new clip, at the step it comes before: a resume writes it again."""
        entry = PrequentialEntry(
            step=self.state.step + 1,
            seconds=self.state.clock.seconds,
            loss=score.loss,
            loss_untrained=score.loss_untrained,
            top1=score.top1,
            top1_copy=score.top1_copy,
            top1_untrained=score.top1_untrained,
            candidates=score.candidates,
        )
        self._log(entry, prequential_points(entry))

    def probe(self, evaluation: Evaluation, *, beside: bool) -> None:
        """An evaluation, whose scores are kept with the run, and an alarm if it shows a collapse.

        One made alongside learning (`beside`) is of an earlier step.
        """
        clock = self.state.clock
        entry = ProbeEntry(
            step=evaluation.step,
            seconds=clock.seconds,
            probe_share=clock.spent.probe_share,
            checkpoint_share=clock.spent.checkpoint_share,
            beside=beside,
            probe_seconds=evaluation.seconds,
        )
        self._log(entry, evaluation_points(evaluation))
        planned = self.state.config.training.steps
        if message := collapse_alarm(evaluation, planned_steps=planned):
            self.warn(message)
        elif note := early_note(evaluation, planned_steps=planned):
            self.event(note)

    def picture(self, step: int, probe: Path) -> None:
        """What a probe drew, for TensorBoard; one whose pictures are damaged is left out."""
        if self._board is None:
            return
        try:
            panels = load_panels(probe)
        except DAMAGE as error:
            log.warning("%s: no picture for TensorBoard (%s)", probe, error)
            return
        image = np.asarray(draw_hero(panels, most=PICTURE_FRAMES))
        self._board.picture(step, "probe/held-out frames", image)

    def event(self, message: str) -> None:
        """Something a person should know of."""
        self._log(
            EventEntry(step=self.state.step, seconds=self.state.clock.seconds, message=message)
        )

    def warn(self, message: str) -> None:
        """Something a person should know of now, and not only from the report."""
        log.warning("%s", message)
        self.event(message)

    def diverged(self, message: str, batch: Sequence[str]) -> None:
        """The end of a run whose numbers are no longer finite, and all clips of the batch."""
        step, seconds = self.state.step, self.state.clock.seconds
        self._log(EventEntry(step=step, seconds=seconds, message=message, batch=list(batch)))

    def source(
        self, summaries: Sequence[RecordingSummary], origin: Origin, *, clip_overhead: float
    ) -> None:
        """What this start learns from."""
        self._log(
            SourceEntry(
                step=self.state.step,
                seconds=self.state.clock.seconds,
                recordings=[summary.name for summary in summaries],
                footage=[summary.text for summary in summaries],
                store=origin.store,
                steps=self.state.config.training.steps,
                clip_overhead=clip_overhead,
                device=str(self.state.trainer.device),
                precision=self.state.trainer.precision,
                command=list(origin.command),
            )
        )

    def sync(self) -> None:
        """Put on disk what was written: before a checkpoint, whose resume keeps it."""
        self.directory.sync_metrics()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's files."""
        if self._board is not None:
            self._board.close()

    def _log(self, entry: Entry, points: Points | None = None) -> None:
        self.directory.log(entry)
        if self._board is not None and points is not None:
            self._board.draw(entry.step, points)
