"""When a run looks at its model: the probe in place of learning, or beside it."""

from __future__ import annotations

import logging
import shutil
from typing import Protocol, runtime_checkable

from online.errors import FootageError, ServerError, ServerSilent
from online.probing.evaluator import Evaluator
from online.reports.report import write_report
from online.runs.directory import RunDirectory
from online.scores.evaluation import Evaluation, find_evaluation, save_evaluation
from online.session.journal import Journal
from online.session.probe_process import Ended, ProbeProcess, forget_weights, unheard_probe
from online.session.state import RunState
from online.session.status import Watcher
from online.stop import StopSignals

log = logging.getLogger(__name__)


@runtime_checkable
class Probes(Protocol):
    """Makes the probe of the step that the run has come to; what is there already stays."""

    def resume(self) -> None:
        """Deal with what an earlier start has left unfinished."""
        ...

    def due(self) -> None:
        """Begin the probe of this step, which has a checkpoint."""
        ...

    def poll(self) -> None:
        """Take in what has been found since."""
        ...

    def last(self) -> Evaluation | None:
        """The evaluation of this step, waited for; None where there can be none.

        Raises StopRequested: a signal came first.
        """
        ...

    def close(self) -> None:
        """Give up what is not finished."""
        ...


class ProbeBook:
    """Where what a probe found, or why there is none, is written down."""

    def __init__(self, directory: RunDirectory, state: RunState, journal: Journal) -> None:
        self.directory = directory
        self.state = state
        self.journal = journal

    def evaluation(self, step: int) -> Evaluation | None:
        """What was found at `step`; None where nothing was yet."""
        return find_evaluation(self.directory.probe_folder(step))

    def left_over(self) -> int | None:
        """The step whose probe an earlier start has begun and not finished.

        One whose scores were saved as that start ended is logged instead.
        """
        step = unheard_probe(self.directory)
        if step is None or (evaluation := self.evaluation(step)) is None:
            return step
        forget_weights(self.directory.probe_folder(step))
        self.found(evaluation, beside=True)
        return None

    def found(self, evaluation: Evaluation, *, beside: bool) -> None:
        """Log an evaluation that was saved, and draw the report."""
        self.journal.probe(evaluation, beside=beside)
        with self.state.clock.standing_still("probe"):
            write_report(self.directory.path)

    def missing(self, step: int, why: str) -> None:
        """Say that there is no probe of `step`."""
        log.warning("no probe at step %d: %s", step, why)
        self.journal.event(f"no probe of step {step}: {why}")


class ProbesInPlace:
    """Learning stands still while the probe is made."""

    def __init__(
        self,
        evaluator: Evaluator,
        state: RunState,
        book: ProbeBook,
        watcher: Watcher,
        stop: StopSignals,
    ) -> None:
        self.evaluator = evaluator
        self.state = state
        self.book = book
        self.watcher = watcher
        self.stop = stop

    def resume(self) -> None:
        """Drop what was left by a start that made its probes beside learning."""
        if (step := self.book.left_over()) is not None:
            shutil.rmtree(self.book.directory.probe_folder(step))
            is_last = step == self.state.step >= self.state.config.training.steps
            if not is_last:  # which is made now
                self.book.missing(step, "it was cut off, and evaluation.beside is off now")

    def due(self) -> None:
        """Make the probe.

        Raises StopRequested: a signal came first; ServerSilent: the server is gone.
        """
        step = self.state.step
        if self.book.evaluation(step) is not None:
            return
        try:
            with self.state.clock.standing_still("probe"), self.stop.at_once():
                found = self.evaluator.evaluate(
                    self.state.trainer.model, step=step, progress=self._progress
                )
                save_evaluation(
                    self.book.directory.probe_folder(step), found.evaluation, found.panels
                )
        except ServerSilent:
            raise
        except (FootageError, ServerError) as error:
            # a camera's first minutes hold nothing out yet; a damaged frame is no reason to stop
            self.book.missing(step, str(error))
        else:
            self.book.found(found.evaluation, beside=False)
        finally:
            self.state.clock.pause()

    def poll(self) -> None:
        """Nothing is ever under way."""

    def last(self) -> Evaluation | None:
        """The evaluation of this step, made if it is missing."""
        self.due()
        return self.book.evaluation(self.state.step)

    def close(self) -> None:
        """Nothing is ever under way."""

    def _progress(self, what: str, share: float) -> None:
        self.stop.check()
        self.watcher.tell(what, share)


class ProbesBeside:
    """Learning goes on while a process makes the probe, one at a time."""

    def __init__(
        self,
        process: ProbeProcess,
        state: RunState,
        book: ProbeBook,
        watcher: Watcher,
        stop: StopSignals,
    ) -> None:
        self.process = process
        self.state = state
        self.book = book
        self.watcher = watcher
        self.stop = stop

    def resume(self) -> None:
        """Begin with what was cut off."""
        if (step := self.book.left_over()) is not None:
            self._begin(step)

    def due(self) -> None:
        """Begin the probe of this step, unless an earlier one is still being made."""
        step = self.state.step
        if self.process.step is None:
            self._begin(step)
        elif self.process.step != step:
            self.book.missing(
                step,
                f"that of step {self.process.step} was still being made; raise "
                "evaluation.every_steps, or lower probe.steps or evaluation.train_clips",
            )

    def poll(self) -> None:
        """Take in a probe that has ended."""
        self._take(self.process.poll())
        self._show()

    def last(self) -> Evaluation | None:
        """The evaluation of this step, after whatever is still under way."""
        step = self.state.step
        self._wait()
        if self.book.evaluation(step) is None:
            self._begin(step)
            self._wait()
        return self.book.evaluation(step)

    def close(self) -> None:
        """End the process; the next start makes the probe that it was at."""
        step = self.process.step
        self.process.close()
        if step is not None:
            self.book.journal.event(f"the probe of step {step} is put off to the next start")

    def _begin(self, step: int) -> None:
        with self.state.clock.standing_still("probe"):
            self.process.begin(step)
        self._show()

    def _show(self) -> None:
        step, share = self.process.step, self.process.share
        self.watcher.beside = "" if step is None else f"probe of step {step} {share:.0%}"

    def _wait(self) -> None:
        self.watcher.beside = ""  # for now it is all that is done
        while self.process.step is not None:
            self.stop.check()
            self.watcher.tell(self.process.doing, self.process.share)
            with self.state.clock.standing_still("probe"):
                ended = self.process.poll(timeout_seconds=0.5)
            self._take(ended)

    def _take(self, ended: Ended | None) -> None:
        if ended is None:
            return
        evaluation = self.book.evaluation(ended.step)
        if evaluation is None:
            self.book.missing(ended.step, ended.failure)
        else:
            self.book.found(evaluation, beside=True)
