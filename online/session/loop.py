"""One run: clips into the replay, steps of the trainer, checkpoints, probes, a report.

    feed.next ─▶ prequential score ─▶ replay.insert
                                      replay.sample ─▶ trainer.step ─▶ journal
                                                       every so often: checkpoint, probe, report

All that decides what is learned is a function of the configuration and of the clips inserted, so a
run that is killed and started again logs, on a CPU, the same losses as one that was left alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from online.clips.clip import Clip
from online.config import RunConfig
from online.errors import ConfigError, Diverged, ServerError, ServerSilent, TrainingError, WireError
from online.probing.evaluator import Evaluator
from online.probing.footage import JoinedSource, check_sizes
from online.queue.client import PATIENCE_SECONDS, Client
from online.queue.connection import ClientCounters
from online.queue.feed import FeedCounters
from online.queue.ledger import Ledger
from online.reports.report import write_report
from online.runs.checkpoint import (
    latest_checkpoint,
    load_untrained,
    newest_readable,
    save_checkpoint,
    set_aside,
)
from online.runs.directory import RunDirectory
from online.runs.segments import Segments
from online.runs.status_file import StatusFile
from online.scores.evaluation import Evaluation
from online.session.clock import Spent
from online.session.journal import Journal, Origin
from online.session.probe_process import ProbeProcess
from online.session.probes import ProbeBook, Probes, ProbesBeside, ProbesInPlace
from online.session.state import RunState
from online.session.status import Observer, Watcher
from online.stop import StopRequested, StopSignals
from online.training.augment import augmented
from online.training.batch import collate
from online.training.prequential import Prequential

log = logging.getLogger(__name__)

Reason = Literal["complete", "stopped", "stream ended", "time is up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    reason: Reason
    step: int
    first_step: int = 0
    """Where this start went on."""
    spent: Spent | None = None
    """None where a signal came before the run began or continued."""
    signal_number: int | None = None
    made_probe: bool = False
    """The last probe was made in this start."""
    lacks_only_probe: bool = False
    """Nothing was left but the last probe, which a signal cut off."""
    evaluation: Evaluation | None = None
    """Of the last probe; None after a signal, which does not wait for one."""
    report: Path | None = None
    received: ClientCounters = field(default_factory=ClientCounters)
    """From all servers, in this start."""
    clips: FeedCounters = field(default_factory=FeedCounters)
    """What became of what was received, in all starts."""


class Session:
    """Wires and runs one run; `run` returns when it is complete or told to stop."""

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
        changes: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.changes = changes
        self.config = config
        self.stop = stop
        self.budget_seconds = math.inf if minutes is None else 60 * minutes
        self.origin = origin or Origin()
        self.check_servers = check_servers or (lambda: None)
        self.ledger = Ledger(directory.ledger_path) if config.stream.ledger else None
        if config.training.keep_segments and len(clients) > 1:
            raise ConfigError("training.keep_segments is for one server: several come by turns")
        segments = Segments(directory.segments) if config.training.keep_segments else None
        self.state = RunState(config, clients, device=device, ledger=self.ledger, segments=segments)
        self.trainer, self.clock = self.state.trainer, self.state.clock
        self.feed, self.replay = self.state.feed, self.state.replay
        self.source = JoinedSource(clients, recordings=config.stream.recordings)
        self.prequential = Prequential(self.trainer, config.training, config.stream.clip)
        self.journal = Journal(directory, self.state)
        self.status_file = StatusFile(directory.status_path)
        observers = [self.status_file] if observe is None else [self.status_file, observe]
        self.watcher = Watcher(
            observers, self.state, self.prequential, budget_seconds=self.budget_seconds
        )
        self.book = ProbeBook(directory, self.state, self.journal)
        self.probes = self._probes(clients, device)
        self._saved_at = time.monotonic()
        self._first_step = 0
        self._tell_at_skips = self._tell_at_released = 1
        self._batch: Sequence[Clip] = ()

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
                raise self._diverged(error) from error
            except TrainingError as error:
                self.journal.event(str(error))
                raise
            return self._ended(reason)
        finally:
            self.status_file.close()
            self.probes.close()
            self.journal.close()
            if self.ledger is not None:
                self.ledger.close()

    def _probes(self, clients: Sequence[Client], device: torch.device) -> Probes:
        helpers = (self.state, self.book, self.watcher, self.stop)
        if self.config.evaluation.beside:
            process = ProbeProcess(self.directory, clients, device=device)
            return ProbesBeside(process, *helpers)
        evaluator = Evaluator(
            self.source,
            self.trainer.untrained,
            self.config.evaluation,
            self.config.probe,
            frame_stride=self.config.stream.frame_stride,
            device=device,
        )
        return ProbesInPlace(evaluator, *helpers)

    def _begin(self) -> None:
        newest = latest_checkpoint(self.directory.checkpoints)
        if newest in (None, self.directory.checkpoint(0)):
            if newest is not None:
                log.warning(
                    "%s: nothing was saved of the start before; this one begins anew",
                    self.directory.path,
                )
            self.directory.begin_anew()
            self._save()  # step 0 is the untrained model, which every evaluation is shown beside
            self.clock.start(0.0)
            self.journal.begin()
        else:
            self._resume()
        self._first_step = self.state.step
        self.watcher.tell("connecting")
        summaries = self.source.recordings()
        check_sizes(summaries)
        self.state.remember_held_out(summaries)
        if added := self.state.remember_recordings([summary.name for summary in summaries]):
            self._warn(f"learns from recordings that were not there before: {', '.join(added)}")
        self.journal.source(
            [summary.name for summary in summaries],
            self.origin,
            clip_overhead=self.config.stream.clip.overhead,
        )

    def _resume(self) -> None:
        found = newest_readable(self.directory.checkpoints)
        rebuilt = load_untrained(self.trainer.untrained, self.directory.checkpoint(0))
        if rebuilt:
            self._save()  # nothing is restored yet: the state is that of step 0
        gone = self.state.restore(
            found.checkpoint,
            where=found.path,
            progress=lambda share: self.watcher.tell("fetching what is replayed", share),
        )
        set_aside(found.damaged)
        self.journal.begin()
        for damage in filter(None, (found.damage, rebuilt)):
            log.warning("%s; continuing from step %d", damage, self.state.step)
            self.journal.event(damage)
        changed = f", with {', '.join(self.changes)}" if self.changes else ""
        self.journal.event(f"continued from the checkpoint of step {self.state.step}{changed}")
        if gone:
            self._warn(
                f"{gone} clips of the replay buffers are no longer kept by the capture: the run "
                "goes on without them"
            )
        self.probes.resume()

    def _learn_and_save(self) -> Reason:
        try:
            reason = self._learn()
        except (ServerError, WireError):  # what was learned before it went wrong is kept
            self._save()
            raise
        self._save()
        return reason

    def _learn(self) -> Reason:
        self.clock.pause()  # what it took to begin says nothing about the rate of learning
        while True:
            self.probes.poll()
            if self.stop.received:
                return "stopped"
            if self.state.step >= self.config.training.steps:
                return "complete"
            if self.clock.seconds >= self.budget_seconds:
                return "time is up"
            try:
                if self._at_probe_step() and self.book.evaluation(self.state.step) is None:
                    self._save()
                    self.probes.due()
                if not self._fill():
                    return "stream ended"
            except StopRequested:
                return "stopped"
            self._step()
            if time.monotonic() - self._saved_at > self.config.training.checkpoint_every_seconds:
                self._save()

    def _ended(self, reason: Reason) -> Outcome:
        if reason == "stopped":
            return self._stopped()
        with self.clock.standing_still("checkpoint"):
            self.state.keep_segments(at_end=True)
        was_probed = self.book.evaluation(self.state.step) is not None
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
            report=write_report(self.directory.path),
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

    def _fill(self) -> bool:
        """Insert the clips that are due; False where the stream ends before they come."""
        while self.replay.inserts_due():
            with self.clock.waiting():
                clip = self._next_clip()
            if clip is None:
                return False
            self.state.enter(clip)
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
            self._tell_of_skips()
            if clip is not None:
                return clip
            self.stop.check()
            self.check_servers()
            if time.monotonic() > patience:
                raise ServerSilent(
                    f"no clip in {PATIENCE_SECONDS:g} s; is the server running, and has its store "
                    "anything new? the same command continues this run"
                )
            self.watcher.tell("waiting for data")
        return None

    def _tell_of_skips(self) -> None:
        """Say that footage was skipped: at once, and then whenever it has doubled."""
        counters = self.feed.counters
        if (late := counters.skipped - counters.released) >= self._tell_at_skips:
            self._tell_at_skips = 2 * late
            self._warn(
                f"too slow for the camera: {late} of {counters.offered} clips skipped, being more "
                f"than {self.config.stream.max_delay_seconds:g} s old; "
                "lower replay.samples_per_insert to learn from more of them"
            )
        if counters.released >= self._tell_at_released:
            self._tell_at_released = 2 * counters.released
            self._warn(
                f"{counters.released} of {counters.offered} clips skipped, being no longer kept by "
                "the capture when their turn came; record with a longer --keep to learn from them"
            )

    def _warn(self, message: str) -> None:
        """Say it now, and in the report."""
        log.warning("%s", message)
        self.journal.event(message)

    def _step(self) -> None:
        self._batch = self.replay.sample()
        learning_rate = self.trainer.learning_rate
        batch = augmented(
            collate(self._batch, self.config.stream.clip),
            self.config.augment,
            key=f"{self.config.training.seed}/{self.state.step}",
        )
        result = self.trainer.step(batch)
        self.replay.update(self._batch, result.features)
        self.clock.step(result.triplets)
        if self.state.segment_has_ended():
            with self.clock.standing_still("checkpoint"):
                self.state.keep_segments()
        for message in self.state.alarms.update(result):
            log.warning("step %d: %s", self.state.step, message)
            self.journal.event(message)
        if self.state.step % self.config.training.log_every_steps == 0:
            self.journal.step(result, learning_rate)
        self.watcher.stepped(result)

    def _at_probe_step(self) -> bool:
        return self.state.step > 0 and self.state.step % self.config.evaluation.every_steps == 0

    def _diverged(self, error: Diverged) -> Diverged:
        """What to say of it; the checkpoint of the very weights that failed is set aside."""
        failed = self.directory.checkpoint(self.state.step)
        if self.state.step and failed.exists():
            set_aside([failed])
        batch = [str(clip.spec) for clip in self._batch]
        more = f" and {len(batch) - 3} more, named in metrics.jsonl" if len(batch) > 3 else ""
        message = (
            f"{error}; the batch was {', '.join(batch[:3])}{more}; lower optimizer.learning_rate "
            "or set optimizer.clip_norm, and the same command continues from "
            f"{latest_checkpoint(self.directory.checkpoints)}"
        )
        self.journal.diverged(message, batch)
        return Diverged(message)

    def _save(self) -> None:
        self.trainer.check_finite()  # what is saved last must be what can be gone on from
        with self.clock.standing_still("checkpoint"):
            self.journal.sync()
            self.feed.sync()
            save_checkpoint(
                self.directory.checkpoints,
                self.state.checkpoint(),
                keep=self.config.training.keep_checkpoints,
            )
        self._saved_at = time.monotonic()
