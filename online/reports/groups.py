"""Runs that differ in their seed alone are one group, which is named by what sets it apart.

Runs on other footage, with another part of it held out, or that have come much further, are never
seeds of one.
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
STEP = "step"
"""Stands among the settings for how far a run has come, where runs of one setting differ in it."""
LENGTH_RATIO = 1.1
"""How much further than another a run may have come to be a seed of one with it."""
NAME_LENGTH = 40
"""Settings that are longer than so many letters do not head a column; names of runs do."""
VALUE_LENGTH = 120
"""Letters of a setting's value that are shown."""
MAX_GROUPS = 4
"""More lines than that cannot be distinguished in a chart."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Runs that differ in their seed alone."""

    name: str
    """The settings in which the groups differ, or where these are long, its runs."""
    settings: str
    """All settings in which the groups differ; empty where there is one group."""
    runs: list[RunLog]

    @property
    def lead(self) -> str:
        """The name, with the settings where it is not these."""
        return (
            f"{self.name}: {self.settings}" if self.settings not in ("", self.name) else self.name
        )


def group_runs(paths: Sequence[Path], *, defaults: Mapping[str, Any]) -> list[Group]:
    """Read runs and put those together that differ in their seed alone, in the order given.

    What a run has learned from counts as a setting: its recordings, their lengths and what is held
    out of them. So does how far it has come, where others of its settings have not come as far.

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
    parts = [part for members in together.values() for part in _by_length(members, runs)]
    if len(parts) > len(together):
        for part in parts:
            settings[part[0]] = settings[part[0]] | {STEP: _steps_text(part, runs)}
    if len(parts) > MAX_GROUPS:
        what = "settings or lengths" if len(parts) > len(together) else "settings"
        raise RunError(
            f"{len(parts)} different {what}; one page can distinguish at most {MAX_GROUPS}: "
            "name fewer runs"
        )
    texts = _apart([settings[part[0]] for part in parts])
    names = _names(parts, texts)
    return [
        Group(name=name, settings=text, runs=[runs[path] for path in part])
        for name, text, part in zip(names, texts, parts, strict=True)
    ]


def _by_length(members: Sequence[Path], runs: Mapping[Path, RunLog]) -> list[list[Path]]:
    """Runs of one setting, put together where they have come about as far; in the order given."""
    left = list(members)
    parts: list[list[Path]] = []
    while left:
        furthest = max(_reached(runs[path]) for path in left)
        part = [path for path in left if _reached(runs[path]) * LENGTH_RATIO >= furthest]
        left = [path for path in left if path not in part]
        parts.append(part)
    return sorted(parts, key=lambda part: members.index(part[0]))


def _reached(run: RunLog) -> int:
    return 0 if run.reached is None else run.reached.step


def _steps_text(part: Sequence[Path], runs: Mapping[Path, RunLog]) -> str:
    reached = sorted({_reached(runs[path]) for path in part})
    return f"{reached[0]} to {reached[-1]}" if len(reached) > 1 else str(reached[0])


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
    learned_from = footage(list(runs.values()))
    written = {
        path: written_settings(run) | {FOOTAGE: each}
        for (path, run), each in zip(runs.items(), learned_from, strict=True)
    }
    if len({frozenset(found) for found in written.values()}) <= 1:
        return written
    return {path: {**defaults, **found} for path, found in written.items()}


def footage(runs: Sequence[RunLog]) -> list[str]:
    """What each has learned from, in words that are equal where the footage is."""
    is_known = all(run.source is None or run.source.footage for run in runs)
    return [_footage(run, by_text=is_known) for run in runs]


def _footage(run: RunLog, *, by_text: bool) -> str:
    """Logs of older runs know names and the store's place only."""
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


def _apart(every: Sequence[Settings]) -> list[str]:
    """What distinguishes each of these settings from the others."""
    keys = sorted({key for settings in every for key in settings} - {SEED})
    apart = [key for key in keys if any(other.get(key) != every[0].get(key) for other in every)]
    return [
        ", ".join(f"{key}={_shortened(settings.get(key))}" for key in apart) for settings in every
    ]


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= VALUE_LENGTH else f"{text[:VALUE_LENGTH]}…"


def _names(parts: Sequence[Sequence[Path]], texts: Sequence[str]) -> list[str]:
    """What heads the column of each group."""
    if len(parts) == 1:
        return ["all runs"]
    if max(map(len, texts)) <= NAME_LENGTH:
        return list(texts)
    firsts = [part[0] for part in parts]
    is_clear = len({path.name for path in firsts}) == len(firsts)
    names = [path.name if is_clear else str(path) for path in firsts]
    more = [f" and {len(part) - 1} more" if len(part) > 1 else "" for part in parts]
    return [name + rest for name, rest in zip(names, more, strict=True)]
