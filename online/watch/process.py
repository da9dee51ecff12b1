"""The page in a process of its own, next to a command that learns or records.

parent ──▶ python -m online.watch.process PATH
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
"""The command next to it comes first."""


class PageProcess:
    """A page of one run or store, which may not be there yet, for as long as it is entered."""

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)

    def __enter__(self) -> PageProcess:
        self._child = Child("online.watch.process", [self._path])
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


def main(path: str) -> None:
    """Serve the page of what is at `path` until stdin ends."""
    hear_parent(lambda line: None, at_end=lambda: os._exit(0))
    os.nice(LEAST_PRIORITY)
    from online.watch.runs import Runs
    from online.watch.server import serve_page

    runs = Runs([Path(path)], may_be_absent=True)
    serve_page(runs, ready=lambda address: print(address, flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
