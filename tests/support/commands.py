"""`setcon` commands as processes of their own that need not import torch again: that takes seconds.

A server process imports what the commands import, once, and each command is a fork of it.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["cli", "online.demo", "online.compare_page", "torch._dynamo"])


def setcon(
    *arguments: str | Path, cwd: Path | None = None, file_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """What a command prints and how it ends; it may write no file larger than ``file_bytes``."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _FORKS.Process(target=_run, args=(words, cwd, file_bytes, out, err))
        process.start()
        process.join(100.0)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, 100.0, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(
            words, process.exitcode, out.read_text(), err.read_text()
        )


def _run(words: list[str], cwd: Path | None, file_bytes: int | None, out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        target = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(target, number)
        os.close(target)
    if cwd is not None:
        os.chdir(cwd)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    sys.argv = ["setcon", *words]
    from cli import main

    main()
