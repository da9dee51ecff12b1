"""What happens in a run, written down: metrics.jsonl, and TensorBoard where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from online.runs.directory import RunDirectory
from online.runs.tensorboard import Curves, open_curves
from online.scores.evaluation import Evaluation, collapse_alarm
from online.session.state import RunState
from online.training.prequential import PrequentialScore
from online.training.trainer import StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a run's footage comes from, for the report."""

    store: str = ""
    """Path of the store, or addresses of the servers."""
    command: Sequence[str] = ()
    """Words of a command line that continues the run, if `--steps` is put behind them."""


class Journal:
    """Lines and curves of one start of a run, each at the step that the run has come to."""

    def __init__(self, directory: RunDirectory, state: RunState) -> None:
        self.directory = directory
        self.state = state
        self._curves: Curves | None = None

    def begin(self) -> None:
        """Go on behind the state's step: what was written of later ones counts no more."""
        self.directory.cut_back(self.state.step)
        self._curves = open_curves(self.directory.curves, after_step=self.state.step)

    def step(self, result: StepResult, learning_rate: float) -> None:
        """An optimizer step, and the rate that it was taken with."""
        clock, received = self.state.clock, self.state.feed.received
        self._log(
            "step",
            loss=result.loss,
            exclusivity=result.exclusivity,
            top1=result.top1,
            chance_loss=result.chance,
            grad_norm=result.grad_norm,
            learning_rate=learning_rate,
            triplets_per_second=clock.triplets_per_second,
            wait_share=clock.wait_share,
            delay_seconds=clock.delay_seconds,
            clips_inserted=self.state.feed.counters.inserted,
            clips_skipped=self.state.feed.counters.skipped,
            samples_per_insert=self.state.samples_per_insert,
            clips_received=received.clips,
            reconnects=received.reconnects,
            discarded_messages=received.stale,
            damaged_clips=received.damaged,
            probe_share=clock.spent.probe_share,
            checkpoint_share=clock.spent.checkpoint_share,
            epoch=self.state.feed.epoch,
        )
        self._draw(
            self.state.step,
            {
                "loss": result.loss,
                "exclusivity": result.exclusivity,
                "top1": result.top1,
                "triplets_per_second": clock.triplets_per_second,
                "delay_seconds": clock.delay_seconds,
            },
        )

    def prequential(self, score: PrequentialScore) -> None:
        """The score of a new clip, at the step it comes before: a resume writes it again."""
        step = self.state.step + 1
        self._log(
            "prequential",
            step=step,
            loss=score.loss,
            loss_untrained=score.loss_untrained,
            top1=score.top1,
            top1_copy=score.top1_copy,
            top1_untrained=score.top1_untrained,
            candidates=score.candidates,
        )
        self._draw(
            step,
            {
                "prequential/top1": score.top1,
                "prequential/top1_copy": score.top1_copy,
                "prequential/top1_untrained": score.top1_untrained,
            },
        )

    def probe(self, evaluation: Evaluation, *, beside: bool) -> None:
        """An evaluation, whose scores are kept with the run, and an alarm if it shows a collapse.

        One made `beside` learning is of an earlier step.
        """
        spent = self.state.clock.spent
        self._log(
            "probe",
            step=evaluation.step,
            beside=beside,
            probe_seconds=evaluation.seconds,
            probe_share=spent.probe_share,
            checkpoint_share=spent.checkpoint_share,
        )
        points: dict[str, float | None] = {}
        for suffix, encoder in (("", evaluation.trained), ("_untrained", evaluation.untrained)):
            alphas = encoder.current.alphas
            points[f"probe/mse_share{suffix}"] = encoder.current.mse_share
            points[f"probe/fg_ari{suffix}"] = None if alphas is None else alphas.fg_ari
        self._draw(evaluation.step, points)
        if message := collapse_alarm(evaluation):
            self.event(message)

    def event(self, message: str) -> None:
        """Something a person should know of."""
        self._log("event", message=message)

    def diverged(self, message: str, batch: Sequence[str]) -> None:
        """The end of a run whose numbers are none any more, and all clips of the batch."""
        self._log("event", message=message, batch=list(batch))

    def source(self, recordings: Sequence[str], origin: Origin, *, clip_overhead: float) -> None:
        """What this start learns from."""
        self._log(
            "source",
            recordings=list(recordings),
            store=origin.store,
            steps=self.state.config.training.steps,
            clip_overhead=clip_overhead,
            command=list(origin.command),
        )

    def sync(self) -> None:
        """Put on disk what was written: before a checkpoint, whose resume keeps it."""
        self.directory.sync_metrics()
        if self._curves is not None:
            self._curves.flush()

    def close(self) -> None:
        """Let go of TensorBoard's files."""
        if self._curves is not None:
            self._curves.close()

    def _log(self, kind: str, *, step: int | None = None, **values: object) -> None:
        self.directory.log(
            kind,
            step=self.state.step if step is None else step,
            seconds=self.state.clock.seconds,
            **values,
        )

    def _draw(self, step: int, values: dict[str, float | None]) -> None:
        if self._curves is not None:
            self._curves.draw(step, values)
