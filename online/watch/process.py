"""The page in a process of its own, next to a command that learns, at the lowest priority.

parent ──▶ python -m online.watch.process RUN
       ◀── "http://127.0.0.1:8642/"
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType

from online.process import Child, hear_parent

LEAST_PRIORITY = 19


class PageProcess:
    """A page of one run, which may not have begun yet, for as long as the object is entered."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def __enter__(self) -> PageProcess:
        self._child = Child("online.watch.process", [str(self._run)])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.leave(within_seconds=0.0)

    def address(self, timeout_seconds: float = 60.0) -> str | None:
        """Where the page is; None where its process has ended or takes too long."""
        deadline = time.monotonic() + timeout_seconds
        while not self._child.has_ended and (left := deadline - time.monotonic()) > 0:
            for line in self._child.lines(left):
                return line
        return None

    def failure(self) -> str:
        """Why there is no address."""
        return self._child.last_words() if self._child.has_ended else "its process takes too long"

    def end(self) -> None:
        """End the process at once: it has nothing to save."""
        self._child.kill()


def main(run: str) -> None:
    """Serve the page of `run` until stdin ends."""
    hear_parent(lambda line: None, at_end=lambda: os._exit(0))
    os.nice(LEAST_PRIORITY)
    from online.watch.runs import Runs
    from online.watch.server import serve_page

    runs = Runs([Path(run)], may_be_absent=True)
    serve_page(runs, ready=lambda address: print(address, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
