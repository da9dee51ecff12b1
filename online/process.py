"""A process that lives no longer than its parent, and talks in lines.

    parent ── lines on stdin, which stays open ──▶ python -m MODULE ARGUMENTS
           ◀────────── lines on stdout ────────── (what it says on stderr is kept for the end)

It leaves when its stdin ends, and so also when its parent is killed.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ingest.python_module import module_command, module_environment

LEAVE_SECONDS = 5.0
"""How long a child may take to leave before it is killed."""


class Child(subprocess.Popen[bytes]):
    """`python -m module arguments`, out of reach of the terminal's Ctrl-C."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child
        self._selector = selectors.DefaultSelector()
        self._begun = b""
        super().__init__(
            module_command(module, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=module_environment(),
            start_new_session=True,  # Ctrl-C is for the parent, which saves and then leaves
        )
        assert self.stdin is not None
        assert self.stdout is not None
        self._to, self._from = self.stdin, self.stdout
        self._selector.register(self._from, selectors.EVENT_READ)

    def tell(self, line: str) -> None:
        """Send a line; one that cannot arrive is lost, as the child's end will show."""
        with suppress(BrokenPipeError):
            self._to.write(f"{line}\n".encode())
            self._to.flush()

    def lines(self, timeout_seconds: float = 0.0) -> list[str]:
        """Lines that have arrived, or else the next ones to arrive within the time given."""
        deadline = time.monotonic() + timeout_seconds
        while self._selector.get_map() and self._selector.select(deadline - time.monotonic()):
            data = os.read(self._from.fileno(), 1 << 16)
            if not data:
                self._selector.unregister(self._from)
            *whole, self._begun = (self._begun + data).split(b"\n")
            if whole:
                return [line.decode(errors="replace") for line in whole]
        return []

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come from it."""
        return not self._selector.get_map() or self.poll() is not None

    def last_words(self) -> str:
        """How a child that has ended did so, with the last line that it left on stderr."""
        code = self.wait(LEAVE_SECONDS)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").splitlines()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return how + (f" ({said[-1]})" if said else "")

    def leave(self, *, within_seconds: float = LEAVE_SECONDS) -> None:
        """End it: its stdin ends, and if that does not help in time it is killed."""
        with suppress(BrokenPipeError):
            self._to.close()
        try:
            self.wait(within_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()
        self._selector.close()
        self._from.close()
        self._log.close()


def hear_parent(hear: Callable[[str], None], *, at_end: Callable[[], None]) -> None:
    """In a child: pass lines from the parent on, and leave when there will be no more.

    `at_end` has `LEAVE_SECONDS` to end the process well; both are called in another thread.
    """

    def run() -> None:
        begun = b""
        while data := os.read(0, 4096):
            *whole, begun = (begun + data).split(b"\n")
            for line in whole:
                hear(line.decode())
        at_end()
        time.sleep(LEAVE_SECONDS)  # no one is left to wait for whatever holds it up
        os._exit(1)

    threading.Thread(target=run, daemon=True).start()
