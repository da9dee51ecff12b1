"""Several runs on one page: what seeds have in common, and in what settings differ.

What runs have learned from is not compared: of several seeds, each may have a recording of its own.

runs ── same settings but for the seed ──▶ groups ──▶ curves: mean, in a band of least to greatest
                                                  └─▶ scores: mean ± standard error, and each seed's
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from online.config import RunConfig, flattened
from online.errors import RunError
from online.reports.verdict import recent_top1
from online.runs.log import RunLog, not_a_run, read_run
from online.scores.evaluation import Evaluation, Placed, ReconstructionScores

T = TypeVar("T")

Points = Float[np.ndarray, "_points 2"]
"""Steps and values, in order of steps; of each run, another number."""

SEED = "training.seed"
_DEFAULTS = flattened(dataclasses.asdict(RunConfig()))
UNEVEN = 1.5
"""Scores of steps further apart than by this factor are remarked on."""
LATE = 0.1
"""Share of a run's steps that says what it has come to."""
MAX_GROUPS = 4
"""More lines than that are not told apart in a chart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Runs that differ in their seed alone."""

    name: str
    """The settings in which the groups differ."""
    runs: list[RunLog]

    def values(self, measure: Measure) -> list[float]:
        """One for each run that has it."""
        return [value for value in self.each(measure) if value is not None]

    def each(self, measure: Measure) -> list[float | None]:
        """One for each run; None for one that has it not."""
        found = [measure.of(run) for run in self.runs]
        return [v if v is not None and math.isfinite(v) else None for v in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number that a run comes to."""

    name: str
    of: Callable[[RunLog], float | None]
    meaning: str
    decimals: int = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """Several curves as one, over the steps that all of them have."""

    steps: Float[np.ndarray, " n"]
    mean: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


def group_runs(paths: Sequence[Path]) -> list[Group]:
    """Read runs and put those together that differ in their seed alone, in the order given.

    Raises RunError: a run that cannot be read, is named twice, is a copy of another or has no
    settings, or too many groups.
    """
    runs: dict[Path, RunLog] = {}
    for path in paths:
        if path.resolve() in runs:
            raise RunError(f"{path}: named twice; name each run once")
        runs[path.resolve()] = read_run(path)
    settings = {path: _settings(run) for path, run in runs.items()}
    together: dict[str, list[Path]] = {}
    for path, found in settings.items():
        key = repr(sorted((name, value) for name, value in found.items() if name != SEED))
        together.setdefault(key, []).append(path)
    for members in together.values():
        _check_no_copies([runs[path] for path in members])
    if len(together) > MAX_GROUPS:
        raise RunError(
            f"{len(together)} different settings; at most {MAX_GROUPS} are told apart on one page: "
            "name fewer runs"
        )
    firsts = [settings[members[0]] for members in together.values()]
    return [
        Group(name=_name(settings[members[0]], firsts), runs=[runs[path] for path in members])
        for members in together.values()
    ]


def _check_no_copies(runs: Sequence[RunLog]) -> None:
    """Refuse a run whose losses are another's: it would count as a seed, and says nothing new."""
    losses = [{entry.step: entry.loss for entry in run.steps} for run in runs]
    for i, j in combinations(range(len(runs)), 2):
        shared = losses[i].keys() & losses[j].keys()
        if shared and all(losses[i][step] == losses[j][step] for step in shared):
            raise RunError(
                f"{runs[j].path}: has the losses of {runs[i].path}, so it is a copy, or the same "
                "seed on the same footage; name one of them"
            )


def spread(curves: Sequence[Points], *, stretches: int) -> Spread | None:
    """The curves of several runs as one; None where they have fewer than two steps in common.

    A run of more points than `stretches` is first made the means of so many. What was logged at
    other steps than in the first run is read off between its neighbours.
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


def mean_text(values: Sequence[float], decimals: int) -> str:
    """The mean, with its standard error where there are several: `0.913 ± 0.010`."""
    if not values:
        return "-"
    mean = format(statistics.mean(values), f".{decimals}f")
    if len(values) == 1:
        return mean
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {error:.{decimals}f}"


def remarks(groups: Sequence[Group]) -> list[str]:
    """What a reader of the table should know, a sentence each."""
    runs = [run for group in groups for run in group.runs]
    found = [f"{run.path}: {each}" for run in runs for each in run.unreadable]
    scored = [(run.evaluation.step, run.path) for run in runs if run.evaluation is not None]
    seeds = [", ".join(sorted(str(_settings(run)[SEED]) for run in g.runs)) for g in groups]
    if len(set(seeds)) > 1:
        each = [f"{group.name} has {own}" for group, own in zip(groups, seeds, strict=True)]
        found.append(f"Seeds differ too: {'; '.join(each)}")
    for group in groups:
        if best := most_exclusive(group.runs):
            run, exclusivity = best
            found.append(
                f"{run.path}: has the most exclusive slots of its seeds, {exclusivity:.3f}"
            )
        without = [str(run.path) for run in group.runs if run.evaluation is None]
        if len(without) < len(group.runs):
            found += [f"{path}: has no scores, the means are of the others" for path in without]
    if scored and max(scored)[0] > UNEVEN * min(scored)[0]:
        (least, short), (most, long) = min(scored), max(scored)
        found.append(f"Scores are of step {least} in {short} and of step {most} in {long}")
    return found


def measures(groups: Sequence[Group]) -> list[Measure]:
    """All that at least one run has a number for."""
    return [m for m in MEASURES if any(group.values(m) for group in groups)]


def _settings(run: RunLog) -> dict[str, Any]:
    if run.settings is None:
        raise not_a_run(run.path)
    if not run.settings.strip():
        raise RunError(f"{run.path}: config.toml is empty; restore it from a copy")
    try:  # of a run made by an earlier version, settings that came later have their defaults
        return _DEFAULTS | flattened(tomllib.loads(run.settings))
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{run.path}: config.toml cannot be read as TOML ({error})") from error


def _name(settings: dict[str, Any], among: Sequence[dict[str, Any]]) -> str:
    """What sets these settings apart from the others."""
    keys = sorted({key for other in among for key in other} - {SEED})
    apart = [key for key in keys if any(other.get(key) != among[0].get(key) for other in among)]
    return ", ".join(f"{key}={settings.get(key)}" for key in apart) or "all runs"


def _scored(
    of: Callable[[Evaluation], T | None], value: Callable[[T], float | None]
) -> Callable[[RunLog], float | None]:
    """A value of a part of the latest evaluation, where there is that part."""

    def found(run: RunLog) -> float | None:
        part = run.evaluation and of(run.evaluation)
        return value(part) if part else None

    return found


def fg_ari(scores: ReconstructionScores) -> float | None:
    """Of the alphas, where there are masks."""
    return None if scores.alphas is None else scores.alphas.fg_ari


def mse_share(scores: ReconstructionScores) -> float | None:
    """Of the mean frame's error."""
    return scores.mse_share


def _known(places: Sequence[Placed]) -> float:
    return statistics.mean(place.is_known for place in places)


def _top1(run: RunLog) -> float | None:
    recent = recent_top1(run.prequential)
    return None if recent is None else recent.top1


def late_exclusivity(run: RunLog) -> float | None:
    """The mean over the last tenth of the steps; None where it was not measured."""
    last = run.steps[-1].step if run.steps else 0
    late = [entry.exclusivity for entry in run.steps if entry.step > (1 - LATE) * last]
    known = [value for value in late if value is not None]
    return statistics.mean(known) if known else None


def most_exclusive(runs: Sequence[RunLog]) -> tuple[RunLog, float] | None:
    """Of the runs that have come about as far as any, the first with the highest late exclusivity.

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


def _steps(run: RunLog) -> float | None:
    return None if run.reached is None else float(run.reached.step)


MEASURES = (
    Measure(
        name="s_t FG-ARI",
        of=_scored(lambda e: e.trained.current, fg_ari),
        meaning="Do pixels of one object share a slot, and those of two not? Background left out.",
    ),
    Measure(
        name="s_t ARI",
        of=_scored(lambda e: e.trained.current.alphas, lambda m: m.ari),
        meaning="The same over all pixels: the background counts too.",
    ),
    Measure(
        name="s_t mBO",
        of=_scored(lambda e: e.trained.current.alphas, lambda m: m.mbo),
        meaning="How well the best slot covers each object, outline included.",
    ),
    Measure(
        name="s_t MSE share",
        of=_scored(lambda e: e.trained.current, mse_share),
        meaning="Error of what the probe draws, as a share of the mean frame's; lower is better.",
    ),
    Measure(
        name="p_t FG-ARI",
        of=_scored(lambda e: e.trained.predicted, fg_ari),
        meaning="From slots that were predicted out of the two frames before.",
    ),
    Measure(
        name="p_t MSE share",
        of=_scored(lambda e: e.trained.predicted, mse_share),
        meaning="From the same slots; lower is better.",
    ),
    Measure(
        name="copied as p_t FG-ARI",
        of=_scored(lambda e: e.copied, fg_ari),
        meaning="What p_t has to beat: drawn as if nothing moved.",
    ),
    Measure(
        name="copied as p_t MSE share",
        of=_scored(lambda e: e.copied, mse_share),
        meaning="The same; lower is better.",
    ),
    Measure(
        name="untrained s_t FG-ARI",
        of=_scored(lambda e: e.untrained.current, fg_ari),
        meaning="Of the encoder before its first step, under the same probe.",
    ),
    Measure(
        name="untrained s_t MSE share",
        of=_scored(lambda e: e.untrained.current, mse_share),
        meaning="The same; lower is better.",
    ),
    Measure(
        name="blocks FG-ARI",
        of=_scored(lambda e: e.without_model, lambda w: w.blocks.fg_ari),
        meaning="Without a model: a grid on the image.",
    ),
    Measure(
        name="colours FG-ARI",
        of=_scored(lambda e: e.without_model, lambda w: w.colours.fg_ari),
        meaning="Without a model: colours found by k-means.",
    ),
    Measure(
        name="share of things placed",
        of=_scored(lambda e: e.trained.places, _known),
        meaning="Of how many things one slot alone tells the place, whatever the probe draws.",
    ),
    Measure(
        name="untrained things placed",
        of=_scored(lambda e: e.untrained.places, _known),
        meaning="The same of the encoder before its first step.",
    ),
    Measure(
        name="next frame found",
        of=_top1,
        meaning="How often, in the latest new footage, before it was learned from.",
    ),
    Measure(
        name="exclusivity",
        of=late_exclusivity,
        meaning="How much of what a slot reads is its alone, as training ends; needs no masks.",
    ),
    Measure(
        name="steps",
        of=_steps,
        meaning="Until where the run has come.",
        decimals=0,
    ),
)
