"""A store as sections of the page: its newest frame, and what a capture has counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import IngestError
from ingest.open import open_store
from ingest.store.protocols import Store
from ingest.store.records import CommitRecord
from online.watch import sections
from online.watch.followed import EVERY_SECONDS, Sections

SHOWN_RECORDINGS = 6
"""Those that were written to last."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One recording, as its commit record has it."""

    name: str
    commit: CommitRecord
    delay_seconds: float | None = None
    """Age of the newest frame when it was seen here; None where it is not from a camera."""


class FollowedStore:
    """The sections of one store; several threads may ask for them."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._now = now
        self._lock = threading.Lock()
        self._sections: Sections = {}
        self._looked_at = -EVERY_SECONDS
        self._seen: tuple[str, int, int] | None = None
        self._delay: float | None = None

    def sections(self) -> Sections:
        """All of them as they are now, at most `EVERY_SECONDS` old."""
        with self._lock:
            if self._now() - self._looked_at >= EVERY_SECONDS:
                try:
                    self._look()
                except (IngestError, OSError) as error:
                    self._sections["notes"] = sections.notes([str(error)])
                self._looked_at = self._now()
            return dict(self._sections)

    def _look(self) -> None:
        store = open_store(self.path)
        names = _latest(self.path)
        found = [Recording(name, store.commit(name)) for name in names]
        if found:
            self._follow(store, found[0])
            found[0] = Recording(found[0].name, found[0].commit, self._delay)
        self._sections |= {
            "state": sections.store_state(found),
            "counters": sections.recordings(found),
            "notes": "",
        }

    def _follow(self, store: Store, newest: Recording) -> None:
        """Read the newest frame, if it is another one."""
        commit = newest.commit
        seen = (newest.name, commit.length, commit.released)
        if seen == self._seen or commit.length == commit.released:
            return
        with closing(store.reader(newest.name)) as reader:
            last = reader.commit.length - 1
            frames = reader.read(last, last + 1)
        self._seen, self._delay = seen, None
        if frames.captured_ns is not None and not commit.complete:
            self._delay = time.time() - int(frames.captured_ns[-1]) / 1e9
        self._sections["glimpse"] = sections.newest_frame(newest.name, frames.images[-1], commit)


def is_store(path: Path) -> bool:
    """Whether there is a store."""
    return (path / "store.json").exists()


def _latest(path: Path) -> list[str]:
    """Names of the recordings that were written to last, the latest first."""
    written: list[tuple[float, str]] = []
    for commit in path.glob("recordings/*/commit.json"):
        try:
            written.append((commit.stat().st_mtime, commit.parent.name))
        except FileNotFoundError:
            continue  # it is being replaced by --overwrite
    return [name for _, name in sorted(written, reverse=True)[:SHOWN_RECORDINGS]]
