import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from streaming import clips as clips_of

from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.errors import ServerError
from online.queue.client import Client
from online.queue.server_process import ServerProcess
from online.queue.stream import ServeConfig

WANT = ClipRequest(clip=ClipConfig(clip_length=4, frame_stride=2), max_epochs=1)
BOUND = 20.0


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def until_dead(server: ServerProcess) -> None:
    """Raises what `check` raises once the process has ended."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        server.check()
        time.sleep(0.02)


def test_a_store_is_served_by_a_process_that_leaves_with_the_context(store, record):
    record("a", 100)
    with ServerProcess(store.location, ServeConfig(holdout=0.5)) as server:
        folder = Path(server.address.removeprefix("ipc://")).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        with Client(server.address) as client:
            assert client.recordings()[0].train[0].stop == 50
            client.open(WANT)
            assert sum(len(clip.frames) - 4 for clip in clips_of(client, BOUND)) == 46
        server.check()
    assert not folder.exists()


def test_a_store_that_is_none_gives_the_stores_own_message(tmp_path):
    (tmp_path / "file").write_text("not a store")
    server = ServerProcess(tmp_path / "file")
    with pytest.raises(ServerError, match=str(tmp_path / "file")) as caught, server:
        pass
    assert "\n" not in str(caught.value)


def test_a_server_that_was_killed_is_reported(store, record):
    record("a", 30)
    with ServerProcess(store.location) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="killed by SIGKILL"):
            until_dead(server)


def test_the_server_leaves_and_cleans_up_when_its_trainer_is_killed(store, record):
    record("a", 30)
    program = f"""
        import pathlib, time
        from online.queue.server_process import ServerProcess
        with ServerProcess(pathlib.Path({store.location!r})) as server:
            print(server.pid, server.address, flush=True)
            time.sleep(60)
    """
    trainer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout is not None
    number, address = trainer.stdout.readline().split()
    pid, folder = int(number), Path(address.removeprefix("ipc://")).parent
    assert is_running(pid)
    trainer.kill()
    trainer.communicate()
    deadline = time.monotonic() + BOUND
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not folder.exists()
