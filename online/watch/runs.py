"""What the page shows, by name: runs and stores that were named, and runs in folders that were."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from ingest.printable import harmless
from online.errors import RunError
from online.reports.report import name_of
from online.runs.names import CONFIG_FILE
from online.watch.followed import FollowedRun
from online.watch.footage import FollowedStore, is_store


class Runs:
    """Runs by name; in a named folder new ones are found as they begin."""

    def __init__(self, paths: Sequence[Path], *, may_be_absent: bool = False) -> None:
        """Follow the runs at `paths`, or in them.

        Raises RunError where one does not exist, unless it `may_be_absent`, or holds no run.
        """
        self._paths = list(dict.fromkeys(path.resolve() for path in paths))
        self._lock = threading.Lock()
        self._followed: dict[tuple[Path, bool], FollowedRun | FollowedStore] = {}
        if not may_be_absent:
            for path in paths:
                if not path.is_dir():
                    what = "is a file" if path.exists() else "no such directory"
                    raise RunError(f"{path}: {what}; name a run, or a folder of runs")
                if not (_runs_at(path) or is_store(path)):
                    raise RunError(
                        f"{path}: is neither a run (no config.toml) nor a store, and holds no run; "
                        "name the --run of a training, a folder of runs, or a store"
                    )

    def names(self) -> list[str]:
        """In the order given, and within a folder the run that was begun last first.

        What cannot be sent or shown in a name is spelled out.
        """
        return list(self._by_name())

    def find(self, name: str | None) -> FollowedRun | FollowedStore | None:
        """The run or store of that name, or the first one where None is named."""
        paths = self._by_name()
        path = next(iter(paths.values()), None) if name is None else paths.get(name)
        if path is None:
            return None
        holds_footage = is_store(path)
        with self._lock:
            key = (path, holds_footage)
            if key not in self._followed:
                self._followed[key] = (FollowedStore if holds_footage else FollowedRun)(path)
            return self._followed[key]

    def _by_name(self) -> dict[str, Path]:
        found = [run for path in self._paths for run in _runs_at(path) or [path]]
        named: dict[str, Path] = {}
        for run in dict.fromkeys(found):
            name = harmless(name_of(run))
            named[name if name not in named else harmless(str(run))] = run
        return named


def _runs_at(path: Path) -> list[Path]:
    if (path / CONFIG_FILE).exists():
        return [path]
    inside = [found.parent for found in path.glob(f"*/{CONFIG_FILE}")]
    return sorted(inside, key=_begun, reverse=True)


def _begun(run: Path) -> float:
    try:
        return (run / CONFIG_FILE).stat().st_mtime
    except FileNotFoundError:
        return 0.0
