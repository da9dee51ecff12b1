"""One run: clips into the replay, steps of the trainer, checkpoints, probes, a report.

    intake.fill ─▶ agreement ─▶ replay.sample ─▶ trainer.step ─▶ journal
                   every so often: checkpoint, probe, report

All that decides what is learned is a function of the configuration and of the clips inserted, so a
run that is killed and started again logs, on a CPU, the same losses as one that was left alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from online.clips.clip import Clip
from online.config import RunConfig
from online.errors import Diverged, RankLost, ServerError, TrainingError, WireError
from online.session.agreement import Found
from online.session.glimpses import Glimpses
from online.session.intake import Intake
from online.session.journal import Journal
from online.session.outcome import Outcome, Reason
from online.session.probes.runners import Probes
from online.session.saving import Saving
from online.session.shards import Drawn
from online.session.state import RunState
from online.session.status import Watcher
from online.stop import StopRequested, StopSignals
from online.training.augment import augmented
from online.training.batch import Batch, collate, joined
from online.training.kept_maps import KeptMaps
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
        self.trainer, self.alarms, self.clock = state.trainer, state.alarms, state.clock
        self.world = state.world
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
        self._maps = KeptMaps(state.trainer)

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
                raise self.saving.diverged(error, self._batch_names()) from error
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
        except (ServerError, WireError, RankLost):  # what was learned before it went wrong is kept
            self.saving.save()
            raise
        self.saving.save()
        return reason

    def _learn(self) -> Reason:
        while True:
            self.probes.poll()
            if reason := self._reason_to_stop():
                return reason
            agreed = self.state.agreed(self._found())
            if agreed.failure is not None:
                raise agreed.failure
            if agreed.reason is not None:
                return agreed.reason
            self._step()
            self.glimpses.stepped(self.intake.newest)
            self.saving.report_early()
            if agreed.is_save_due:
                self.saving.save()

    def _reason_to_stop(self) -> Reason | None:
        if self.state.is_complete:
            return "complete"
        return self._own_reason() if self.world.size == 1 else None  # else they agree first

    def _own_reason(self) -> Reason | None:
        if self.stop.received or self.world.is_stopping():
            return "stopped"
        is_late = self.world.writes and self.clock.seconds >= self.budget_seconds
        return "time is up" if is_late else None

    def _found(self) -> Found:
        """Make the probe that is due and take in the clips that are due; what came of it."""
        reason: Reason | None = None
        try:
            if self._is_probe_due():
                self.saving.save()
                with self.world.turn_of_first(self.state.agreement.announce):
                    self.probes.due()
            if not self.intake.fill():
                reason = "stream ended"
        except StopRequested:
            reason = "stopped"
        except (ServerError, WireError) as error:
            return Found(failure=error)
        if reason is None and self.world.size > 1:
            reason = self._own_reason()
        return Found(reason=reason, is_save_due=self.saving.is_due)

    def _is_probe_due(self) -> bool:
        step, every = self.state.step, self.config.evaluation.every_steps
        if step == 0 or step % every:
            return False
        return self.world.first_says(self.probes.found() is None)

    def _step(self) -> None:
        drawn = Drawn(self.state.shards)
        self._batch = drawn.clips
        learning_rate = self.trainer.learning_rate
        most = self.config.training.batch_clips // self.world.size
        lengths = self.state.agreement.lengths(drawn.clips, most=most)
        batch = self._collated(drawn, num_frames=max(map(max, lengths)))
        result = self.trainer.step(batch, lengths=lengths)
        drawn.learned(result.feedback)
        self.clock.step(result.triplets)
        self.saving.keep_end_weights()
        for message in self.alarms.update(result):
            log.warning("step %d: %s", self.state.step, message)
            self.journal.event(message)
        if self.state.step % self.config.training.log_every_steps == 0:
            self.journal.step(result, learning_rate)
        self.watcher.stepped(result)

    def _collated(self, drawn: Drawn, *, num_frames: int) -> Batch:
        """What is drawn, each shard's clips changed by its own draws."""
        batches: list[Batch] = []
        for shard, clips in zip(self.state.shards, drawn.by_shard, strict=True):
            batch = collate(clips, self.config.stream.clip, num_frames=num_frames)
            if self.config.model.finds_objects:
                batch = self._pieces.added(batch, clips)
            if self.config.model.keeps_maps:
                batch = self._maps.added(batch, clips)
            key = f"{self.config.training.seed}/{self.state.step}"
            key += f"/{shard.index}" if shard.index else ""
            batches.append(augmented(batch, self.config.augment, key=key))
        return joined(batches)

    def _batch_names(self) -> list[str]:
        """Clips of the batch of all ranks, which have all diverged with the same step."""
        names = json.dumps([str(clip.spec) for clip in self._batch]).encode()
        return [name for part in self.world.gathered_bytes(names) for name in json.loads(part)]

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
            received=self.state.received,
            clips=self.state.counters,
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
            received=self.state.received,
            clips=self.state.counters,
        )
