"""How a run begins, continues and is saved: its checkpoints."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

from ingest.errors import StoreError
from online.allocator import give_back_holes
from online.errors import Diverged, RunError
from online.reports.report import write_report
from online.runs.checkpoint import (
    Found,
    latest_checkpoint,
    load_untrained,
    newest_readable,
    save_checkpoint,
)
from online.runs.directory import RunDirectory
from online.runs.entries import EventEntry, last_spent, read_log
from online.runs.segments import EndWeights
from online.runs.weights import load_into
from online.session.journal import Journal
from online.session.state import RunState
from online.session.status import Watcher
from online.training.config import TrainingConfig
from setcon.frozen import learned_state

log = logging.getLogger(__name__)

EARLY_SECONDS = 60.0
"""Least time between two reports before the first probe."""
EARLY_SHARE = 0.005
"""Share of the time that they may take."""
_BEGINS = "begins with the model of step"


class Saving:
    """Begins, continues and saves a run."""

    def __init__(
        self,
        directory: RunDirectory,
        config: TrainingConfig,
        state: RunState,
        *,
        journal: Journal,
        watcher: Watcher,
        changes: Sequence[str],
        init: Path | None = None,
        end_weights: EndWeights | None = None,
    ) -> None:
        """`changes` are settings that differ from those of earlier starts; `init` is a run whose
        model a new run begins with."""
        self.directory = directory
        self.config = config
        self.state = state
        self.trainer, self.clock = state.trainer, state.clock
        self.journal = journal
        self.watcher = watcher
        self.changes = changes
        self.init = init
        self.end_weights = end_weights
        self._saved_at = time.monotonic()
        self._early_due = 0.0

    def begin(self) -> bool:
        """Begin the run, or continue it from its newest checkpoint that can be read.

        Returns whether it continues. Raises OnlineError: it can do neither.
        """
        newest = latest_checkpoint(self.directory.checkpoints)
        if self.state.world.first_says(newest not in (None, self.directory.checkpoint(0))):
            self._resume()
            return True
        if newest is not None and self.directory.writes:
            log.warning(
                "%s: the previous attempt saved no checkpoint; starting over", self.directory.path
            )
        found = None if self.init is None else newest_readable(RunDirectory(self.init).checkpoints)
        self.directory.begin_anew()
        self.save()  # step 0 is the untrained model, which every evaluation compares with
        self.clock.start(0.0)
        self.journal.begin()
        if found is not None:
            self._take(found)
        return False

    def save(self) -> None:
        """Write a checkpoint of this step; every rank has to call it.

        Raises Diverged: a weight is NaN or infinite; CheckpointError: it cannot be written.
        """
        self.trainer.check_finite()  # a run must be able to go on from what is saved last
        with self.clock.paused("checkpoint"):
            shards = self.state.saved_shards()
            if self.directory.writes:
                self.journal.sync()  # first: a resume keeps every line up to its checkpoint
                folder, checkpoint = self.directory.checkpoints, self.state.checkpoint(shards)
                save_checkpoint(folder, checkpoint, keep=self.config.keep_checkpoints)
            give_back_holes()  # else the process would stay as large as it ever was
        self._saved_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough for another one."""
        return time.monotonic() - self._saved_at > self.config.checkpoint_every_seconds

    def report_early(self) -> None:
        """Draw the report now and then until the first probe, which draws it from then on."""
        began = now = time.monotonic()
        if now < self._early_due:
            return
        if not self.directory.writes or self.directory.has_probe:
            self._early_due = math.inf
            return
        with self.clock.paused("probe"):
            try:
                write_report(self.directory.path)
            except (RunError, StoreError) as error:
                log.warning("%s; the run goes on", error)
                now = math.inf  # once is enough
        took = time.monotonic() - began
        self._early_due = now + max(EARLY_SECONDS, took / EARLY_SHARE)

    def keep_end_weights(self, *, at_end: bool = False) -> None:
        """Keep the weights of segments that have ended with this step, or with the run."""
        waiting = self.state.waiting()
        if self.end_weights is None or not (at_end or self.end_weights.are_due(waiting)):
            return
        with self.clock.paused("checkpoint"):
            model = learned_state(self.state.evaluated)
            self.end_weights.stepped(waiting, model, self.state.step)
            if at_end:
                self.end_weights.end(model, self.state.step)

    def report(self) -> Path | None:
        """Draw the report and return its path; None if another process draws it."""
        return write_report(self.directory.path) if self.directory.writes else None

    def diverged(self, error: Diverged, names: Sequence[str]) -> Diverged:
        """Set the checkpoint of the weights that failed aside, and say what to do about it.

        `names` are the clips of the batch.
        """
        failed = self.directory.checkpoint(self.state.step)
        if self.state.step and failed.exists():
            self.directory.set_aside([failed])
        more = f" and {len(names) - 3} more, named in metrics.jsonl" if len(names) > 3 else ""
        message = (
            f"{error}; the batch was {', '.join(names[:3])}{more}; lower optimizer.learning_rate "
            "or set optimizer.clip_norm, and the same command continues from "
            f"{latest_checkpoint(self.directory.checkpoints)}"
        )
        self.journal.diverged(message, list(names))
        return Diverged(message)

    def _take(self, found: Found) -> None:
        """Continue learning from the weights of another run."""
        for model in filter(None, (self.state.model, self.trainer.mean)):
            load_into(model, found.checkpoint.model, where=found.path)
        self.journal.event(f"{_BEGINS} {found.checkpoint.step} of {self.init}")

    def _init_again(self, init: Path) -> None:
        """What `init` means to a run that has begun: all, where it continues from step 0."""
        if self.state.step == 0:
            self._take(newest_readable(RunDirectory(init).checkpoints))
        elif self.directory.writes and not self._has_begun_with(init):
            self.journal.warn(
                f"--init {init} is ignored: {self.directory.path} has begun without it; choose a "
                "new --run directory to begin with that model"
            )

    def _has_begun_with(self, init: Path) -> bool:
        entries = (line.entry for line in read_log(self.directory.metrics_path))
        return any(
            entry.message.startswith(_BEGINS) and entry.message.endswith(f" of {init}")
            for entry in entries
            if isinstance(entry, EventEntry)
        )

    def _count_last_probe(self) -> None:
        """Go on from the last line of the log, where a probe made it later than the checkpoint."""
        if not self.directory.writes:
            return
        entries = [line.entry for line in read_log(self.directory.metrics_path) if line.entry]
        logged = last_spent(entries)
        if logged is not None and logged.seconds > self.clock.seconds:
            shares = {"probe": logged.probe_share, "checkpoint": logged.checkpoint_share}
            paused = {cause: (share or 0.0) * logged.seconds for cause, share in shares.items()}
            self.clock.start(logged.seconds, paused)

    def _resume(self) -> None:
        found = newest_readable(self.directory.checkpoints)
        rebuilt = load_untrained(self.state.untrained, self.directory.checkpoint(0))
        if rebuilt:
            self.save()  # nothing is restored yet: the state is that of step 0
        gone = self.state.restore(
            found.checkpoint,
            where=found.path,
            progress=lambda share: self.watcher.tell("restoring the replay buffer", share),
        )
        # only now: they are reported once, and a start that fails before this has reported none
        self.directory.set_aside(found.damaged)
        if self.end_weights is not None:
            self.end_weights.cut_back(self.state.step)
        self.journal.begin()
        self._count_last_probe()
        for damage in filter(None, (found.damage, rebuilt)):
            log.warning("%s; continuing from step %d", damage, self.state.step)
            self.journal.event(damage)
        if self.init is not None:
            self._init_again(self.init)
        changed = f", with {', '.join(self.changes)}" if self.changes else ""
        self.journal.event(f"continued from the checkpoint of step {self.state.step}{changed}")
        if gone:
            self.journal.warn(
                f"{gone} clips of the replay buffers were deleted by the capture; the run goes on "
                "without them",
            )
