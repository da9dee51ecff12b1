"""When a run looks at its model: inline, while learning is paused, by a worker, or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from online.errors import FootageError, ServerError, ServerSilent
from online.probing.evaluator import Evaluator
from online.scores.evaluation import Evaluation
from online.session.clock import RunClock
from online.session.probes.book import ProbeBook
from online.session.probes.process import Ended, ProbeProcess, forget_weights
from online.session.state import RunState
from online.session.status import Watcher
from online.stop import StopSignals


@runtime_checkable
class Probes(Protocol):
    """Makes the probe of the step that the run has reached; one that exists is kept."""

    def resume(self) -> None:
        """Deal with what an earlier start has left unfinished."""
        ...

    def due(self) -> None:
        """Begin the probe of this step, which has a checkpoint.

        Raises StopRequested: a signal came first; ServerSilent: the server is gone.
        """
        ...

    def poll(self) -> None:
        """Take in what has been found since."""
        ...

    def found(self) -> Evaluation | None:
        """The evaluation of this step, if there is one already."""
        ...

    def last(self) -> Evaluation | None:
        """The evaluation of this step, waited for; None where there can be none.

        Raises StopRequested: a signal came first.
        """
        ...

    def close(self) -> None:
        """Give up what is not finished."""
        ...


class ProbesElsewhere:
    """Another trainer of the run makes its probes."""

    def resume(self) -> None:
        """Nothing is left unfinished here."""

    def due(self) -> None:
        """Nothing is made here."""

    def poll(self) -> None:
        """Nothing is ever under way."""

    def found(self) -> Evaluation | None:
        """None: what the other trainer finds is not waited for."""
        return None

    def last(self) -> Evaluation | None:
        """None: what the other trainer finds is not waited for."""
        return None

    def close(self) -> None:
        """Nothing is ever under way."""


@dataclass(eq=False)
class _InRun:
    """What both ways of probing need of the run around them."""

    state: RunState
    book: ProbeBook
    watcher: Watcher
    stop: StopSignals

    @property
    def clock(self) -> RunClock:
        """The run's clock."""
        return self.state.clock

    def found(self) -> Evaluation | None:
        """The evaluation of this step, if there is one already."""
        return self.book.evaluation(self.state.step)


@dataclass(eq=False)
class ProbeInline(_InRun):
    """Learning is paused while the probe is made."""

    evaluator: Evaluator

    def resume(self) -> None:
        """Drop what was left by a start that made its probes by a worker."""
        if (step := self.book.left_over()) is not None:
            if step == self.state.step and self.state.is_complete:  # it is made now
                forget_weights(self.book.directory.probe_folder(step))
                return
            self.book.drop(step)
            self.book.missing(step, "it was cut off, and evaluation.beside is off now")

    def due(self) -> None:
        """Make the probe.

        Raises StopRequested: a signal came first; ServerSilent: the server is gone.
        """
        step = self.state.step
        if self.found() is not None:
            return
        try:
            with self.clock.paused("probe"), self.stop.at_once():
                model = self.state.evaluated
                folder = self.book.directory.probe_folder(step)
                findings = self.evaluator.evaluate_in(
                    folder, model, step=step, progress=self._progress
                )
                self.book.save(findings)
        except ServerSilent:
            raise
        except (FootageError, ServerError) as error:
            # a camera's first minutes hold nothing out yet; a damaged frame should not stop a run
            self.book.missing(step, str(error))
        else:
            self.book.found(findings.evaluation, beside=False)
        finally:
            self.clock.pause()

    def poll(self) -> None:
        """Nothing is ever under way."""

    def last(self) -> Evaluation | None:
        """The evaluation of this step, made if it is missing."""
        self.due()
        return self.found()

    def close(self) -> None:
        """Nothing is ever under way."""

    def _progress(self, what: str, share: float) -> None:
        self.stop.check()
        self.watcher.tell(what, share)


@dataclass(eq=False)
class ProbeWorker(_InRun):
    """Learning goes on while a process makes the probe, one at a time."""

    process: ProbeProcess

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
        """The evaluation of this step, after any probe that is still under way."""
        self._wait()
        if self.found() is None:
            self._begin(self.state.step)
            self._wait()
        return self.found()

    def close(self) -> None:
        """End the process; the next start makes the probe that it was at."""
        step = self.process.step
        self.process.close()
        if step is not None:
            self.book.put_off(step)

    def _begin(self, step: int) -> None:
        with self.clock.paused("probe"):
            self.process.begin(step)
        self._show()

    def _show(self) -> None:
        step, share = self.process.step, self.process.share
        self.watcher.beside = "" if step is None else f"probe of step {step} {share:.0%}"

    def _wait(self) -> None:
        self.watcher.beside = ""  # for now nothing goes on alongside
        while self.process.step is not None:
            self.stop.check()
            self.watcher.tell(self.process.doing, self.process.share)
            with self.clock.paused("probe"):
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
