"""One run as sections of the page, brought up to date as its files change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from online.errors import RunError
from online.reports.glimpses import glimpse_tiles
from online.reports.tiles import panel_colours
from online.runs.entries import FollowedLog
from online.runs.glimpse import load_glimpse
from online.runs.log import RunLog, read_run
from online.watch import sections
from online.watch.live import LiveFile

EVERY_SECONDS = 1.0
"""Files are looked at at most this often, however many pages are open."""
LOG_SHARE = 0.05
"""Share of the time that drawing a long log may take."""

Sections = dict[str, str]
"""Markup by the id of the element that it fills."""


class FollowedRun:
    """The sections of one run; several threads may ask for them."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._now = now
        self._lock = threading.Lock()
        self._log = FollowedLog(path / "metrics.jsonl")
        self._live = LiveFile(path, now=now)
        self._run: RunLog | None = None
        self._sections: Sections = {}
        self._looked_at = -EVERY_SECONDS
        self._log_due = 0.0
        self._probes: tuple[object, ...] = ()
        self._newest: tuple[object, ...] = ()
        self._is_behind = False

    def sections(self) -> Sections:
        """All of them as they are now, at most `EVERY_SECONDS` old."""
        with self._lock:
            if self._now() - self._looked_at >= EVERY_SECONDS:
                self._look()
                self._looked_at = self._now()
            return dict(self._sections)

    def _look(self) -> None:
        live = self._live.poll()
        try:
            self._follow_log()
            self._follow_newest()
        except (RunError, OSError) as error:
            self._sections["notes"] = sections.notes([str(error)])
        try:
            self._sections["state"] = sections.state(live, self._run)
            self._sections["counters"] = sections.counters(live, self._run)
        except (TypeError, ValueError) as error:  # not a status that a trainer writes
            self._sections["notes"] = sections.notes([f"status.json: {error}"])

    def _follow_log(self) -> None:
        """Draw the log and the probes again if they have changed, and not too often."""
        probes = tuple(map(_stamp, sorted(self.path.glob("probes/step-*/scores.json"))))
        try:
            self._is_behind |= self._log.poll()
        except OSError as error:
            raise RunError(f"{self._log.path}: cannot be read ({error})") from error
        if not self.path.is_dir() or self._now() < self._log_due:
            return
        if self._run is not None and not self._is_behind and probes == self._probes:
            return
        began = self._now()
        has_new_probe = self._run is None or probes != self._probes
        run = read_run(self.path, entries=list(self._log.entries))
        self._run, self._probes, self._is_behind = run, probes, False
        self._sections |= {
            "words": sections.words(run),
            "numbers": sections.numbers(run),
            "curves": sections.curves(run),
            "events": sections.events(run),
            "notes": sections.notes(run.unreadable),
        }
        if has_new_probe:
            self._sections["probe"] = sections.probe(run)
            self._newest = ()  # the slots may have other colours now
        took = self._now() - began
        self._log_due = began + took / LOG_SHARE

    def _follow_newest(self) -> None:
        path = self.path / "newest.npz"
        stamp = _stamp(path)
        if stamp == self._newest:
            return
        found = load_glimpse(path)
        self._newest = stamp
        if found is None:
            self._sections["glimpse"] = ""
            return
        panels = self._run.panels if self._run is not None else None
        colours = None if panels is None else panel_colours(panels)
        self._sections["glimpse"] = sections.glimpse(found, glimpse_tiles(found, colours))


def _stamp(path: Path) -> tuple[object, ...]:
    """Changes with the file."""
    try:
        found = path.stat()
    except OSError:
        return (path.name, None)
    return (path.parent.name, found.st_ino, found.st_mtime_ns, found.st_size)
