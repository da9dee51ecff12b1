"""What a run's probes found, or why there is none, written down."""

from __future__ import annotations

import logging
import shutil

from online.probing.evaluator import Findings
from online.reports.report import write_report
from online.runs.directory import RunDirectory
from online.scores.evaluation import Evaluation, find_evaluation, save_evaluation
from online.session.clock import RunClock
from online.session.journal import Journal
from online.session.probes.process import forget_weights, unheard_probe

log = logging.getLogger(__name__)


class ProbeBook:
    """Where what a probe found, or why there is none, is written down."""

    def __init__(self, directory: RunDirectory, journal: Journal, clock: RunClock) -> None:
        self.directory = directory
        self.journal = journal
        self.clock = clock

    def evaluation(self, step: int) -> Evaluation | None:
        """What was found at `step`; None where nothing was yet."""
        return find_evaluation(self.directory.probe_folder(step))

    def save(self, findings: Findings) -> None:
        """Keep what was found with the run."""
        evaluation = findings.evaluation
        folder = self.directory.probe_folder(evaluation.step)
        save_evaluation(folder, evaluation, findings.panels)

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

    def drop(self, step: int) -> None:
        """Remove what there is of the probe of `step`."""
        shutil.rmtree(self.directory.probe_folder(step))

    def found(self, evaluation: Evaluation, *, beside: bool) -> None:
        """Log an evaluation that was saved, and draw the report."""
        self.journal.probe(evaluation, beside=beside)
        with self.clock.paused("probe"):
            step = evaluation.step
            self.journal.picture(step, self.directory.probe_folder(step))
            write_report(self.directory.path)

    def missing(self, step: int, why: str) -> None:
        """Say that there is no probe of `step`."""
        log.warning("no probe at step %d: %s", step, why)
        self.journal.event(f"no probe of step {step}: {why}")

    def put_off(self, step: int) -> None:
        """Say that the probe of `step` was given up for now."""
        self.journal.event(f"the probe of step {step} is put off to the next start")
