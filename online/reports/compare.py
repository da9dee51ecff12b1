"""Groups of runs next to each other: what the seeds of each have in common.

scores    mean ± standard error over the runs of a group, and each run's
curves    the mean of a group, in a band from its least to its greatest run
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from online.reports.curves import Points
from online.reports.groups import SEED, Group, footage, written_settings
from online.runs.entries import Entry
from online.runs.log import RunLog
from online.scores.evaluation import LEAST_CLIPS, RECENT_CLIPS
from online.scores.measures import EXCLUSIVITY, Measure, measures
from online.scores.numbers import Format, whole
from online.scores.parts import ATTENTION, CURRENT, Part, parts

UNEVEN = 1.5
"""Scores of steps further apart than by this factor are remarked on."""
LATE = 0.1
"""The last share of a run's steps, whose mean stands for the whole run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A number that each run ends with."""

    name: str
    heading: str
    """The name with an arrow that points to the better side."""
    meaning: str
    of: Callable[[RunLog], float | None]
    shown: Format

    def each(self, group: Group) -> list[float | None]:
        """One for each run; None for one without it."""
        found = [self.of(run) for run in group.runs]
        return [v if v is not None and math.isfinite(v) else None for v in found]

    def values(self, group: Group) -> list[float]:
        """One for each run that has it."""
        return [value for value in self.each(group) if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """Several curves as one, over the steps that all of them have."""

    steps: Float[np.ndarray, " n"]
    mean: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


def spread(curves: Sequence[Points], *, stretches: int) -> Spread | None:
    """The curves of several runs as one; None where they have fewer than two steps in common.

    A run of more points than `stretches` is first made the means of so many. What was logged at
    other steps than in the first run is interpolated between its neighbours.
    """
    if not curves or any(len(points) < 2 for points in curves):
        return None
    known = [_shortened(points, stretches) for points in curves]
    begin = max(points[0, 0] for points in known)
    end = min(points[-1, 0] for points in known)
    steps = known[0][:, 0]
    steps = steps[(steps >= begin) & (steps <= end)]
    if len(steps) < 2:
        return None
    values = np.stack([np.interp(steps, points[:, 0], points[:, 1]) for points in known])
    return Spread(steps=steps, mean=values.mean(0), low=values.min(0), high=values.max(0))


def _shortened(points: Points, stretches: int) -> Points:
    if len(points) <= stretches:
        return points
    return np.stack([part.mean(axis=0) for part in np.array_split(points, stretches)])


def remarks(groups: Sequence[Group]) -> list[str]:
    """What a reader of the table should know, a sentence each."""
    runs = [run for group in groups for run in group.runs]
    found = [f"{run.path}: {each}" for run in runs for each in run.unreadable]
    if len({*footage(runs)} - {""}) > 1:
        found.append("The footage differs: a higher score does not say that a run is better")
    found += _other_seeds(groups)
    for group in groups:
        if best := most_exclusive(group.runs):
            run, exclusivity = best
            found.append(
                f"{run.path}: has the most exclusive slots of its seeds, {exclusivity:.3f}"
            )
        without = [str(run.path) for run in group.runs if run.evaluation is None]
        if len(without) < len(group.runs):
            found += [f"{path}: has no scores, the means are of the others" for path in without]
    return found + _uneven_steps(runs)


def _other_seeds(groups: Sequence[Group]) -> list[str]:
    seeds = [
        ", ".join(sorted(str(written_settings(run).get(SEED)) for run in group.runs))
        for group in groups
    ]
    if len(set(seeds)) == 1:
        return []
    each = [f"{group.name} has {own}" for group, own in zip(groups, seeds, strict=True)]
    return [f"Seeds differ too: {'; '.join(each)}"]


def _uneven_steps(runs: Sequence[RunLog]) -> list[str]:
    scored = [(run.evaluation.step, run.path) for run in runs if run.evaluation is not None]
    if not scored or max(scored)[0] <= UNEVEN * min(scored)[0]:
        return []
    (least, short), (most, long) = min(scored), max(scored)
    return [f"Scores are of step {least} in {short} and of step {most} in {long}"]


def rows(groups: Sequence[Group]) -> list[Row]:
    """All that at least one run has a number for."""
    every = [
        *(
            _of_part(measure, part)
            for part in parts("compare")
            for measure in measures("compare", "drawing", "masks")
            if part in (CURRENT, ATTENTION) or measure.is_headline
        ),
        *(
            _of_encoder(measure, trained=trained)
            for measure in measures("compare", "encoder")
            for trained in (True, False)
        ),
        *(_of_new_clips(measure) for measure in measures("compare", "prequential")),
        *(_of_late_steps(measure) for measure in measures("compare", "step")),
        _STEPS,
    ]
    return [row for row in every if any(row.values(group) for group in groups)]


def _of_part(measure: Measure, part: Part) -> Row:
    def found(run: RunLog) -> float | None:
        return None if run.evaluation is None else measure.of_part(run.evaluation, part)

    return Row(
        name=f"{part.name} {measure.name}",
        heading=f"{part.name} {measure.heading}",
        meaning=measure.meaning if part is CURRENT else part.meaning,
        of=found,
        shown=measure.shown,
    )


def _of_encoder(measure: Measure, *, trained: bool) -> Row:
    def found(run: RunLog) -> float | None:
        if run.evaluation is None:
            return None
        return measure.value(run.evaluation.trained if trained else run.evaluation.untrained)

    whose = "" if trained else "untrained "
    meaning = measure.meaning if trained else "The same of the encoder before its first step."
    return Row(
        name=f"{whose}{measure.name}",
        heading=f"{whose}{measure.heading}",
        meaning=meaning,
        of=found,
        shown=measure.shown,
    )


def _of_new_clips(measure: Measure) -> Row:
    def found(run: RunLog) -> float | None:
        recent = run.prequential[-RECENT_CLIPS:]
        return None if len(recent) < LEAST_CLIPS else _mean(measure, recent)

    return _row(measure, found)


def _of_late_steps(measure: Measure) -> Row:
    return _row(measure, lambda run: late_mean(run, measure))


def _row(measure: Measure, of: Callable[[RunLog], float | None]) -> Row:
    return Row(
        name=measure.name,
        heading=measure.heading,
        meaning=measure.meaning,
        of=of,
        shown=measure.shown,
    )


_STEPS = Row(
    name="steps",
    heading="steps",
    meaning="How far the run has come.",
    of=lambda run: None if run.reached is None else float(run.reached.step),
    shown=whole,
)


def late_mean(run: RunLog, measure: Measure) -> float | None:
    """Over the last tenth of the steps; None where it was not measured."""
    last = run.steps[-1].step if run.steps else 0
    return _mean(measure, [entry for entry in run.steps if entry.step > (1 - LATE) * last])


def _mean(measure: Measure, entries: Sequence[Entry]) -> float | None:
    known = [value for entry in entries if (value := measure.value(entry)) is not None]
    return statistics.mean(known) if known else None


def late_exclusivity(run: RunLog) -> float | None:
    """`late_mean` of the exclusivity of slots."""
    return late_mean(run, EXCLUSIVITY)


def most_exclusive(runs: Sequence[RunLog]) -> tuple[RunLog, float] | None:
    """The first run with the highest late exclusivity, among those that have come about furthest.

    None where fewer than two have one.
    """
    furthest = max((run.steps[-1].step for run in runs if run.steps), default=0)
    known = [
        (run, exclusivity)
        for run in runs
        if (exclusivity := late_exclusivity(run)) is not None
        and run.steps[-1].step * UNEVEN >= furthest
    ]
    return max(known, key=lambda pair: pair[1]) if len(known) > 1 else None
