"""A server in a process of its own, for the trainer or the capture that started it.

    parent ── stdin stays open ──▶ python -m online.embedded      serves ipc://FOLDER/s, mode 0700,
           ◀── "ready ADDRESS" or "error MESSAGE" on stdout ──    or an address that was given

The process leaves when its stdin ends, and so also when its parent is killed.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

import msgspec

from ingest.errors import IngestError
from ingest.open import open_store
from online.errors import OnlineError, ServerError
from online.server import serve
from online.stream import ServeConfig

LEAVE_SECONDS = 5.0
"""How long the server may take to leave before it is killed."""


class EmbeddedServer:
    """Serves ``store`` while the context is open; ``address`` is where."""

    def __init__(
        self,
        store: Path,
        config: ServeConfig | None = None,
        *,
        bind: str | None = None,
        start_seconds: float = 60.0,
    ) -> None:
        """Describe a server of the store at ``store``, to be started within ``start_seconds``.

        ``bind`` is where others reach it too; without it, only this program's user does.
        """
        self.address = ""
        self._bind = bind
        self._store = store
        self._config = config or ServeConfig()
        self._start_seconds = start_seconds
        self._folder: Path | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> EmbeddedServer:
        """Start the server and wait until it can be reached.

        Raises:
            ServerError: it could not open the store, or did not start in time.
        """
        # a short path whatever TMPDIR is; mkdtemp makes it with mode 0700
        self._folder = Path(tempfile.mkdtemp(prefix="setcon-", dir=_short_folder()))
        try:
            self._start(self._bind or f"ipc://{self._folder}/s")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Raise ServerError, with the server's own message, if it is no longer running."""
        process = self._started()
        if process.poll() is not None:
            raise ServerError(self._last_words(process))

    def _start(self, address: str) -> None:
        assert self._folder is not None
        config = msgspec.json.encode(self._config).decode()
        arguments = [str(self._store), address, config, str(self._folder)]
        packages = str(Path(__file__).resolve().parents[1])
        path = os.environ.get("PYTHONPATH")
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "online.embedded", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ
                | {"PYTHONPATH": f"{packages}{os.pathsep}{path}" if path else packages},
                start_new_session=True,  # Ctrl-C is for the parent, which saves and then leaves
            )
        word, _, rest = self._first_line(self._process).partition(" ")
        if word != "ready":
            raise ServerError(rest or self._last_words(self._process))
        self.address = rest

    def _first_line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self._start_seconds):
                raise ServerError(
                    f"{self._store}: the server did not start in {self._start_seconds:g} s"
                )
        return process.stdout.readline().strip()

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        assert self._folder is not None
        code = process.wait(LEAVE_SECONDS)
        for line in process.stdout.read().splitlines():
            if line.startswith("error "):
                return line.removeprefix("error ")
        log = (self._folder / "log").read_text().splitlines()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"{self._store}: the server was {how}" + (f" ({log[-1]})" if log else "")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise ServerError(f"{self._store}: the server was not started")
        return self._process


def main(store: str, address: str, config: str, folder: str = "") -> int:
    """Serve until stdin ends; says on stdout how it went. Returns the exit code.

    ``folder`` is removed in the end: a parent that was killed cannot do it.
    """
    logging.basicConfig(level=logging.WARNING)
    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    try:
        serve(
            open_store(Path(store)),
            address,
            config=msgspec.json.decode(config, type=ServeConfig),
            ready=lambda endpoint: print(f"ready {endpoint}", flush=True),
            stop=stop,
        )
    except (OnlineError, IngestError) as error:
        print(f"error {error}", flush=True)
        return 1
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _stop_at_end_of_input(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()
    time.sleep(LEAVE_SECONDS)  # whatever holds the server up, nobody is left to wait for it
    os._exit(1)


def _short_folder() -> str | None:
    """Where sockets of any name fit: the usual temporary folder unless its path is long."""
    return None if len(os.fsencode(tempfile.gettempdir())) < 60 else "/tmp"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
