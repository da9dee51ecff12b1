import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ingest.errors import SourceStopped, VideoError
from ingest.video import decord_process, decord_reader
from ingest.video.decord_process import DecordProcess
from ingest.video.decord_reader import DecordReader

pytest.importorskip("decord", reason="decord has no wheel here")


@pytest.fixture
def decord(clip):
    process = DecordProcess(str(clip), width=40, height=30)
    yield process
    process.close()


def test_frames_come_in_any_order(decord):
    assert len(decord) == 60
    last, first = decord.frame(59), decord.frame(0)
    assert last.shape == (30, 40, 3)
    assert not np.array_equal(last, first)
    np.testing.assert_array_equal(decord.frame(59), last)


def test_one_that_hangs_is_ended_with_an_error(decord, monkeypatch):
    decord.frame(0)
    monkeypatch.setattr(decord_process, "FRAME_SECONDS", 0.3)
    os.kill(decord.pid, signal.SIGSTOP)
    with pytest.raises(VideoError, match=r"cannot decode frame 1 \(it hangs\); use --reader pyav"):
        decord.frame(1)
    with pytest.raises(VideoError, match=r"cannot decode frame 2 .*; use --reader pyav"):
        decord.frame(2)


def test_a_reader_whose_decord_hangs_ends_with_an_error(clip, monkeypatch):
    started: list[int] = []

    class Watched(DecordProcess):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self.pid)

    monkeypatch.setattr(decord_reader, "DecordProcess", Watched)
    with DecordReader(str(clip)) as reader:
        frames = reader.frames()
        next(frames)
        monkeypatch.setattr(decord_process, "FRAME_SECONDS", 0.3)
        os.kill(*started, signal.SIGSTOP)
        with pytest.raises(VideoError, match="it hangs"):
            list(frames)


def test_a_file_that_hangs_as_it_is_opened_is_an_error(clip, monkeypatch):
    monkeypatch.setattr(decord_process, "OPEN_SECONDS", 0.0)
    with pytest.raises(VideoError, match=r"decord cannot open it \(it hangs\)"):
        DecordProcess(str(clip), width=40, height=30)


def test_one_that_hangs_is_left_when_told(clip):
    stopped = False
    process = DecordProcess(str(clip), width=40, height=30, should_stop=lambda: stopped)
    os.kill(process.pid, signal.SIGSTOP)

    def stop() -> None:
        nonlocal stopped
        stopped = True

    threading.Timer(0.3, stop).start()  # while it waits
    with pytest.raises(SourceStopped, match=r"clip.*: stopped"):
        process.frame(0)
    assert stopped
    process.close()


def test_what_decord_says_is_told(decord, tmp_path):
    with pytest.raises(VideoError, match=r"cannot decode frame 60 \(.*; use --reader pyav"):
        decord.frame(60)
    decord.frame(1)  # and it is as good as ever
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text.mp4: decord cannot open it \(.+\)"):
        DecordProcess(str(tmp_path / "text.mp4"), width=40, height=30)


def test_one_that_is_killed_is_an_error(decord):
    os.kill(decord.pid, signal.SIGKILL)
    with pytest.raises(VideoError, match="cannot decode frame 0"):
        decord.frame(0)


PARENT = """
import sys, time
from ingest.video.decord_process import DecordProcess
print(DecordProcess(sys.argv[1], width=40, height=30).pid, flush=True)
time.sleep(60)
"""


def is_running(pid: int) -> bool:
    """Whether a process is there, and not just waiting for someone to ask how it ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_it_leaves_with_its_parent(clip):
    script = [sys.executable, "-c", PARENT, str(clip)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_is_found_from_any_folder(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with DecordReader(str(clip)) as reader:
        assert len(list(reader.frames())) == 60
