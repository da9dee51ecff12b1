"""One run: clips into the replay, steps of the trainer, checkpoints, probes, a report.

    intake.fill ─▶ replay.sample ─▶ trainer.step ─▶ journal
                   every so often: checkpoint, probe, report

All that decides what is learned is a function of the configuration and of the clips inserted, so a
run that is killed and started again logs, on a CPU, the same losses as one that was left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from online.clips.clip import Clip
from online.config import RunConfig
from online.errors import Diverged, ServerError, TrainingError, WireError
from online.session.glimpses import Glimpses
from online.session.intake import Intake
from online.session.journal import Journal
from online.session.outcome import Outcome, Reason
from online.session.probes.runners import Probes
from online.session.saving import Saving
from online.session.state import RunState
from online.session.status import Watcher
from online.stop import StopRequested, StopSignals
from online.training.augment import augmented
from online.training.batch import collate
from online.training.pieces import Pieces

log = logging.getLogger(__name__)


class Session:
    """One start of a run; `run` returns when it is complete or has to stop."""

    def __init__(
        self,
        config: RunConfig,
        state: RunState,
        *,
        intake: Intake,
        saving: Saving,
        probes: Probes,
        glimpses: Glimpses,
        pieces: Pieces,
        journal: Journal,
        watcher: Watcher,
        stop: StopSignals,
        budget_seconds: float,
    ) -> None:
        self.config = config
        self.state = state
        self.trainer, self.replay, self.alarms = state.trainer, state.replay, state.alarms
        self.clock, self.feed = state.clock, state.feed
        self.intake = intake
        self.saving = saving
        self.probes = probes
        self.glimpses = glimpses
        self.journal = journal
        self.watcher = watcher
        self.stop = stop
        self.budget_seconds = budget_seconds
        self._first_step = 0
        self._batch: Sequence[Clip] = ()
        self._pieces = pieces

    def run(self) -> Outcome:
        """Learn until the steps or the minutes are used up, the stream ends, or a signal comes.

        Raises OnlineError: the run cannot begin, continue or go on; what was saved stays;
        StopRequested: a signal came before there was anything to save.
        """
        try:
            with self.stop.at_once():
                self._begin()
            try:
                reason = self._learn_and_save()
            except Diverged as error:
                raise self.saving.diverged(error, self._batch) from error
            except TrainingError as error:
                self.journal.event(str(error))
                raise
            return self._stopped() if reason == "stopped" else self._finished(reason)
        finally:
            self.probes.close()
            self.journal.close()

    def _begin(self) -> None:
        if self.saving.begin():
            self.probes.resume()
        self._first_step = self.state.step
        self.watcher.tell("connecting")
        self.intake.connect()

    def _learn_and_save(self) -> Reason:
        self.clock.pause()  # what it took to begin says nothing about the rate of learning
        try:
            reason = self._learn()
        except (ServerError, WireError):  # what was learned before it went wrong is kept
            self.saving.save()
            raise
        self.saving.save()
        return reason

    def _learn(self) -> Reason:
        try:
            while True:
                self.probes.poll()
                if reason := self._reason_to_stop():
                    return reason
                if self._is_probe_due():
                    self.saving.save()
                    self.probes.due()
                if not self.intake.fill():
                    return "stream ended"
                self._step()
                self.glimpses.stepped(self.intake.newest)
                self.saving.report_early()
                self.saving.save_if_due()
        except StopRequested:
            return "stopped"

    def _reason_to_stop(self) -> Reason | None:
        if self.stop.received:
            return "stopped"
        if self.state.is_complete:
            return "complete"
        return "time is up" if self.clock.seconds >= self.budget_seconds else None

    def _is_probe_due(self) -> bool:
        step, every = self.state.step, self.config.evaluation.every_steps
        return step > 0 and step % every == 0 and self.probes.found() is None

    def _step(self) -> None:
        self._batch = self.replay.sample()
        learning_rate = self.trainer.learning_rate
        batch = collate(self._batch, self.config.stream.clip)
        if self.config.model.finds_objects:
            batch = self._pieces.added(batch, self._batch)
        batch = augmented(
            batch,
            self.config.augment,
            key=f"{self.config.training.seed}/{self.state.step}",
        )
        result = self.trainer.step(batch)
        self.replay.update(self._batch, result.feedback)
        self.clock.step(result.triplets)
        self.saving.keep_end_weights()
        for message in self.alarms.update(result):
            log.warning("step %d: %s", self.state.step, message)
            self.journal.event(message)
        if self.state.step % self.config.training.log_every_steps == 0:
            self.journal.step(result, learning_rate)
        self.watcher.stepped(result)

    def _finished(self, reason: Reason) -> Outcome:
        self.saving.keep_end_weights(at_end=True)
        self.glimpses.take(self.intake.newest)
        was_probed = self.probes.found() is not None
        try:
            evaluation = self.probes.last()
        except StopRequested:
            return self._stopped(lacks_only_probe=True)
        return Outcome(
            reason=reason,
            step=self.state.step,
            first_step=self._first_step,
            spent=self.clock.spent,
            evaluation=evaluation,
            made_probe=evaluation is not None and not was_probed,
            report=self.saving.report(),
            received=self.feed.received,
            clips=self.feed.counters,
        )

    def _stopped(self, *, lacks_only_probe: bool = False) -> Outcome:
        number = self.stop.received
        during = " during the last probe" if lacks_only_probe else ""
        self.journal.event(f"stopped by {number.name if number else 'request'}{during}, saved")
        return Outcome(
            reason="stopped",
            step=self.state.step,
            spent=self.clock.spent,
            signal_number=number,
            lacks_only_probe=lacks_only_probe,
            received=self.feed.received,
            clips=self.feed.counters,
        )
