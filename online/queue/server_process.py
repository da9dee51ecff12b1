"""A server in a process of its own, for the trainer or the capture that started it.

    parent ── stdin stays open ──▶ python -m online.queue.server_process  (this)
           ◀── "ready ADDRESS" or "error MESSAGE" on stdout ──

It serves ipc://FOLDER/s, mode 0700, or an address that was given.

The process leaves when its stdin ends, and so also when its parent is killed.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import msgspec

from ingest.errors import IngestError
from ingest.open import open_store
from online.allocator import keep_memory_together
from online.errors import OnlineError, ServerError
from online.process import Child, hear_parent
from online.queue.keys import ServerKeys
from online.queue.server import serve
from online.queue.stream import ServeConfig

FINISH_POLL_SECONDS, PATIENCE_SECONDS = 0.2, 1.0


class ServerProcess:
    """Serves `store` while the context is open; `address` is where."""

    def __init__(
        self,
        store: str | Path,
        config: ServeConfig | None = None,
        *,
        bind: str | None = None,
        keys: ServerKeys | None = None,
        start_seconds: float = 60.0,
    ) -> None:
        """Describe a server of the store at location `store`, to start within `start_seconds`.

        `bind` is where others reach it too, those whom `keys` let in; without it, only this
        program's user does.
        """
        self.address = ""
        self._bind = bind
        self._keys = keys
        self._store = str(store)
        self._config = config or ServeConfig()
        self._start_seconds = start_seconds
        self._folder: Path | None = None
        self._process: Child | None = None

    def __enter__(self) -> ServerProcess:
        """Start the server and wait until it can be reached.

        Raises ServerError: it could not open the store, or did not start in time.
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

    @property
    def pid(self) -> int | None:
        """The process, while it is there."""
        return None if self._process is None else self._process.pid

    def check(self) -> None:
        """Raise ServerError, with the server's own message, if it is no longer running."""
        process = self._started()
        if process.has_ended:
            raise ServerError(self._last_words(process, process.lines()))

    def finish(self, *, within_seconds: Callable[[], float], waiting: Callable[[], None]) -> bool:
        """Let trainers take what there is, and learn and probe to their end; whether all have left.

        Streams that follow the store end after what there is now. `waiting` is called once if
        trainers do not leave at once; `within_seconds` is asked again and again.
        """
        process = self._started()
        process.tell("finish")
        began_at, has_called = time.monotonic(), False
        while not process.has_ended and (passed := time.monotonic() - began_at) < within_seconds():
            if passed > PATIENCE_SECONDS and not has_called:
                has_called = True
                waiting()
            process.lines(FINISH_POLL_SECONDS)
        return process.has_ended

    def _start(self, address: str) -> None:
        config = msgspec.json.encode(self._config).decode()
        arguments = [self._store, address, config, str(self._folder)]
        if self._keys is not None:
            arguments += [str(self._keys.folder), str(self._keys.allowed)]
        self._process = Child("online.queue.server_process", arguments)
        said = self._process.lines(self._start_seconds)
        if not said and not self._process.has_ended:
            raise ServerError(
                f"{self._store}: the server did not start in {self._start_seconds:g} s"
            )
        word, _, rest = said[0].partition(" ") if said else ("", "", "")
        if word != "ready":
            raise ServerError(self._last_words(self._process, said))
        self.address = rest

    def _last_words(self, process: Child, said: list[str]) -> str:
        for line in said:
            if line.startswith("error "):
                return line.removeprefix("error ")
        return f"{self._store}: the server was {process.last_words()}"

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.leave()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _started(self) -> Child:
        if self._process is None:
            raise ServerError(f"{self._store}: the server was not started")
        return self._process


def main(store: str, address: str, config: str, folder: str = "", *keys: str) -> int:
    """Serve until stdin ends; says on stdout how it went. Returns the exit code.

    `folder` is removed in the end: a parent that was killed cannot do it. `keys` are the two
    paths of ServerKeys, or nothing.
    """
    logging.basicConfig(level=logging.WARNING)
    keep_memory_together()
    stop, finish = threading.Event(), threading.Event()
    hear_parent(lambda line: finish.set(), at_end=stop.set)  # it only ever says one line
    try:
        serve(
            open_store(store),
            address,
            config=msgspec.json.decode(config, type=ServeConfig),
            keys=ServerKeys(*map(Path, keys)) if keys else None,
            ready=lambda endpoint: print(f"ready {endpoint}", flush=True),
            stop=stop,
            finish=finish,
        )
    except (OnlineError, IngestError) as error:
        print(f"error {error}", flush=True)
        return 1
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _short_folder() -> str | None:
    """Where sockets of any name fit: the usual temporary folder unless its path is long."""
    return None if len(os.fsencode(tempfile.gettempdir())) < 60 else "/tmp"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
