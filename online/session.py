"""One run: clips into the replay, steps of the trainer, checkpoints, probes, a report.

    feed.next ─▶ prequential score ─▶ replay.insert
                                      replay.sample ─▶ trainer.step ─▶ journal
                                                       every so often: checkpoint, probe, report

All that decides what is learned is a function of the configuration and of the clips inserted, so a
run that is killed and started again logs the same losses as one that was left alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from online.batch import collate
from online.checkpoint import (
    latest_checkpoint,
    load_untrained,
    newest_readable,
    save_checkpoint,
    set_aside,
)
from online.client import Client
from online.clip import Clip
from online.config import RunConfig
from online.errors import FootageError, ServerError, ServerSilent, TrainingError
from online.evaluate import Evaluator
from online.footage import JoinedSource, check_sizes
from online.journal import Journal, Origin
from online.prequential import Prequential
from online.report import write_report
from online.run_directory import RunDirectory
from online.run_state import RunState
from online.scores import Evaluation, collapse_alarm, find_evaluation, save_evaluation
from online.status import Observer, Watcher
from online.stop import StopSignals

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
"""How long no clip may come before the run gives up: a server may be restarted meanwhile, and a
camera gives none in the minutes that are held out."""

Reason = Literal["complete", "stopped", "stream ended", "time is up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    reason: Reason
    step: int
    signal_number: int | None = None
    evaluation: Evaluation | None = None
    """Of the last probe; None after a signal, which does not wait for one."""
    report: Path | None = None


class _StopRequested(Exception):  # noqa: N818 - carries a signal through a probe
    """A signal came in the middle of something that can be given up."""


class Session:
    """Wires and runs one run; ``run`` returns when it is complete or told to stop."""

    def __init__(
        self,
        directory: RunDirectory,
        config: RunConfig,
        clients: Sequence[Client],
        *,
        device: torch.device,
        stop: StopSignals,
        minutes: float | None = None,
        observe: Observer | None = None,
        origin: Origin | None = None,
        check_servers: Callable[[], None] | None = None,
    ) -> None:
        self.directory = directory
        self.config = config
        self.stop = stop
        self.budget_seconds = math.inf if minutes is None else 60 * minutes
        self.origin = origin or Origin()
        self.check_servers = check_servers or (lambda: None)
        self.state = RunState(config, clients, device=device)
        self.trainer, self.clock = self.state.trainer, self.state.clock
        self.feed, self.replay = self.state.feed, self.state.replay
        self.source = JoinedSource(clients, recordings=config.stream.recordings)
        self.evaluator = Evaluator(
            self.source,
            self.trainer.untrained,
            config.evaluation,
            config.probe,
            frame_stride=config.stream.frame_stride,
            device=device,
        )
        self.prequential = Prequential(self.trainer, config.training, config.stream.clip)
        self.journal = Journal(directory, self.state)
        self.watcher = Watcher(
            observe, self.state, self.prequential, budget_seconds=self.budget_seconds
        )
        self._saved_at = time.monotonic()

    def run(self) -> Outcome:
        """Learn until the steps or the minutes are used up, the stream ends, or a signal comes.

        Raises:
            OnlineError: the run cannot begin, continue or go on; what was saved stays.
        """
        try:
            self._begin()
            try:
                reason = self._learn()
            except ServerError:  # what was learned before the server went away is kept
                self._save()
                raise
            self._save()
            return self._ended(reason)
        finally:
            self.journal.close()

    def _begin(self) -> None:
        newest = latest_checkpoint(self.directory.checkpoints)
        if newest in (None, self.directory.checkpoint(0)):
            self.directory.begin_anew()
            self._save()  # step 0 is the untrained model, which every evaluation is shown beside
            self.clock.start(0.0)
            self.journal.begin()
        else:
            self._resume()
        summaries = self.source.recordings()
        check_sizes(summaries)
        self.state.remember_held_out(summaries)
        self.journal.source(
            [summary.name for summary in summaries],
            self.origin,
            clip_overhead=self.config.stream.clip.overhead,
        )

    def _resume(self) -> None:
        found = newest_readable(self.directory.checkpoints)
        rebuilt = load_untrained(self.trainer.untrained, self.directory.checkpoint(0))
        self.state.restore(found.checkpoint, where=found.path)
        set_aside(found.damaged)
        self.journal.begin()
        for damage in filter(None, (found.damage, rebuilt)):
            log.warning("%s; continuing from step %d", damage, self.state.step)
            self.journal.event(damage)
        self.journal.event(f"continued from the checkpoint of step {self.state.step}")

    def _learn(self) -> Reason:
        self.clock.pause()  # what it took to begin says nothing about the rate of learning
        while True:
            if self.stop.received:
                return "stopped"
            if self.state.step >= self.config.training.steps:
                return "complete"
            if self.clock.seconds >= self.budget_seconds:
                return "time is up"
            try:
                if self._at_probe_step() and self._evaluation() is None:
                    self._save()
                    self._probe()
                    write_report(self.directory.path)
                if not self._fill():
                    return "stream ended"
            except _StopRequested:
                return "stopped"
            self._step()
            if time.monotonic() - self._saved_at > self.config.training.checkpoint_every_seconds:
                self._save()

    def _ended(self, reason: Reason) -> Outcome:
        if reason == "stopped":
            return self._stopped()
        try:
            evaluation = self._evaluation() or self._probe()
        except _StopRequested:
            return self._stopped()
        return Outcome(
            reason=reason,
            step=self.state.step,
            evaluation=evaluation,
            report=write_report(self.directory.path),
        )

    def _stopped(self) -> Outcome:
        number = self.stop.received
        self.journal.event(f"stopped by {number.name if number else 'request'}, saved")
        return Outcome(reason="stopped", step=self.state.step, signal_number=number)

    def _fill(self) -> bool:
        """Insert the clips that are due; False where the stream ends before they come."""
        while self.replay.inserts_due():
            with self.clock.waiting():
                clip = self._next_clip()
            if clip is None:
                return False
            self.state.check_size(clip)
            if self.feed.first_time(clip) and (score := self.prequential.score(clip, self.replay)):
                self.journal.prequential(score)
            self.replay.insert(clip)
            self.feed.inserted(clip)
            self.clock.took_in(clip.last_captured_ns)
        return True

    def _next_clip(self) -> Clip | None:
        """The next clip of the stream, None at its end; looks up for a signal all the while."""
        patience = time.monotonic() + PATIENCE_SECONDS
        while not self.feed.ended:
            clip = self.feed.next(timeout_seconds=0.5)
            if clip is not None:
                return clip
            if self.stop.received:
                raise _StopRequested
            self.check_servers()
            if time.monotonic() > patience:
                raise ServerSilent(
                    f"no clip in {PATIENCE_SECONDS:g} s; is the server running, and has its store "
                    "anything new? the same command continues this run"
                )
            self.watcher.tell("waiting for data")
        return None

    def _step(self) -> None:
        batch = collate(self.replay.sample(), self.config.stream.clip)
        learning_rate = self.trainer.learning_rate
        try:
            result = self.trainer.step(batch)
        except TrainingError as error:
            self.journal.event(str(error))
            raise
        self.clock.step(result.triplets)
        if message := self.state.alarm.update(result):
            self.journal.event(message)
        if self.state.step % self.config.training.log_every_steps == 0:
            self.journal.step(result, learning_rate)
        self.watcher.stepped(result)

    def _at_probe_step(self) -> bool:
        return self.state.step > 0 and self.state.step % self.config.evaluation.every_steps == 0

    def _evaluation(self) -> Evaluation | None:
        """The evaluation of this step, if it was made already."""
        return find_evaluation(self.directory.probe_folder(self.state.step))

    def _probe(self) -> Evaluation | None:
        """Evaluate this step; None where there is no footage for it."""
        step = self.state.step
        try:
            found = self.evaluator.evaluate(self.trainer.model, step=step, progress=self._probing)
        except ServerSilent:
            raise
        except (FootageError, ServerError) as error:
            # a camera's first minutes hold nothing out yet; a damaged frame is no reason to stop
            log.warning("no probe at step %d: %s", step, error)
            self.journal.event(f"no probe: {error}")
            return None
        finally:
            self.clock.pause()
        save_evaluation(self.directory.probe_folder(step), found.evaluation, found.panels)
        self.journal.probe(found.evaluation)
        if message := collapse_alarm(found.evaluation):
            self.journal.event(message)
        return found.evaluation

    def _probing(self, what: str, share: float) -> None:
        if self.stop.received:
            raise _StopRequested
        self.watcher.tell(what, share)

    def _save(self) -> None:
        self.journal.sync()
        save_checkpoint(
            self.directory.checkpoints,
            self.state.checkpoint(),
            keep=self.config.training.keep_checkpoints,
        )
        self._saved_at = time.monotonic()
