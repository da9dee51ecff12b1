"""Runs that differ in their seed alone are one group, which is named by what sets it apart.

Runs on other footage, or with another part of it held out, are never seeds of one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from online.dotted_keys import flattened
from online.errors import RunError
from online.retired_settings import RETIRED
from online.runs.log import RunLog, not_a_run, read_run

Settings = dict[str, Any]
"""Values by their dotted keys."""

SEED = "training.seed"
FOOTAGE = "footage"
"""Stands among the settings for what a run has learned from."""
NAME_LENGTH = 120
"""Letters of a group's name that are shown."""
MAX_GROUPS = 4
"""More lines than that cannot be distinguished in a chart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Runs that differ in their seed alone."""

    name: str
    """The settings in which the groups differ."""
    runs: list[RunLog]


def group_runs(paths: Sequence[Path], *, defaults: Mapping[str, Any]) -> list[Group]:
    """Read runs and put those together that differ in their seed alone, in the order given.

    What a run has learned from counts as a setting: its recordings, their lengths and what is held
    out of them.

    `defaults` are the settings of a run in which nothing was set: an older run lacks those that
    came later.

    Raises RunError: a run that cannot be read, is named twice, is a copy of another or has no
    settings, or too many groups.
    """
    runs: dict[Path, RunLog] = {}
    for path in paths:
        if path.resolve() in runs:
            raise RunError(f"{path}: named twice; name each run once")
        runs[path.resolve()] = read_run(path)
    settings = _settings(runs, defaults)
    together: dict[str, list[Path]] = {}
    for path, found in settings.items():
        key = repr(sorted((name, value) for name, value in found.items() if name != SEED))
        together.setdefault(key, []).append(path)
    for members in together.values():
        _check_no_copies([runs[path] for path in members])
    if len(together) > MAX_GROUPS:
        raise RunError(
            f"{len(together)} different settings; one page can distinguish at most {MAX_GROUPS}: "
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


def _settings(runs: Mapping[Path, RunLog], defaults: Mapping[str, Any]) -> dict[Path, Settings]:
    """The settings of each run, with all the keys that any run has."""
    is_known = all(run.source is None or run.source.footage for run in runs.values())
    written = {
        path: written_settings(run) | {FOOTAGE: _footage(run, by_text=is_known)}
        for path, run in runs.items()
    }
    if len({frozenset(found) for found in written.values()}) <= 1:
        return written
    return {path: {**defaults, **found} for path, found in written.items()}


def _footage(run: RunLog, *, by_text: bool) -> str:
    """What a run has learned from; logs of older runs know names and the store's place only."""
    if run.source is None:
        return ""
    if by_text:
        return "; ".join(run.source.footage)
    return f"{', '.join(run.source.recordings)} in {run.source.store}"


def written_settings(run: RunLog) -> Settings:
    """What `config.toml` says, without retired settings.

    Raises RunError: there is none, or it cannot be read.
    """
    if run.settings is None:
        raise not_a_run(run.path)
    if not run.settings.strip():
        raise RunError(f"{run.path}: config.toml is empty; restore it from a copy")
    try:
        written = flattened(tomllib.loads(run.settings))
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{run.path}: config.toml cannot be read as TOML ({error})") from error
    return {key: value for key, value in written.items() if key not in RETIRED}


def _name(settings: Settings, among: Sequence[Settings]) -> str:
    """What distinguishes these settings from the others."""
    keys = sorted({key for other in among for key in other} - {SEED})
    apart = [key for key in keys if any(other.get(key) != among[0].get(key) for other in among)]
    name = ", ".join(f"{key}={settings.get(key)}" for key in apart) or "all runs"
    return name if len(name) <= NAME_LENGTH else f"{name[:NAME_LENGTH]}…"
