"""`setcon` commands as processes of their own that need not import torch again: that takes seconds.

A server process imports what the commands import, once, and each command is a fork of it.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["cli", "online.demo", "online.reports.compare_page", "torch._dynamo"]
)


def setcon(
    *arguments: str | Path,
    cwd: Path | None = None,
    file_bytes: int | None = None,
    seconds: float = 150.0,
    stdin: bytes | None = None,
) -> subprocess.CompletedProcess[str]:
    """What a command prints and how it ends; it may write no file larger than `file_bytes`.

    `stdin` comes to it through a pipe; without, there is nothing to read.
    """
    words = [str(argument) for argument in arguments]
    pipes = [_FORKS.Pipe(duplex=False) for _ in ("stdout", "stderr")]
    ends = [end for _, end in pipes]
    source, sink = _FORKS.Pipe(duplex=False)
    given = None if stdin is None else source
    process = _FORKS.Process(target=_run, args=(words, cwd, file_bytes, given, *ends))
    with ThreadPoolExecutor(len(pipes) + 1) as pool:
        try:
            process.start()
            for end in (*ends, source):
                end.close()
            pool.submit(_write, sink, stdin or b"")
            out, err = [pool.submit(_read, pipe) for pipe, _ in pipes]
            process.join(seconds)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(words, seconds)
        finally:
            if process.is_alive():
                process.kill()
                process.join()
        return subprocess.CompletedProcess(words, process.exitcode, out.result(), err.result())


def _read(pipe: Connection) -> str:
    with pipe, open(pipe.fileno(), closefd=False) as text:
        return text.read()


def _write(pipe: Connection, data: bytes) -> None:
    with pipe, suppress(BrokenPipeError), open(pipe.fileno(), "wb", closefd=False) as raw:
        raw.write(data)


def _run(
    words: list[str],
    cwd: Path | None,
    file_bytes: int | None,
    given: Connection | None,
    out: Connection,
    err: Connection,
) -> None:
    if given is not None:
        os.dup2(given.fileno(), 0)
        given.close()
    for number, end in ((1, out), (2, err)):
        os.dup2(end.fileno(), number)
        end.close()
    if cwd is not None:
        os.chdir(cwd)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    sys.argv = ["setcon", *words]
    from cli import main

    main()
