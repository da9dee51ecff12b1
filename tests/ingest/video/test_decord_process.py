import os
import signal
import threading

import numpy as np
import pytest

from ingest.errors import SourceStopped, VideoError
from ingest.video import decord_process
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
    with DecordReader(str(clip)) as reader:
        frames = reader.frames()
        next(frames)
        monkeypatch.setattr(decord_process, "FRAME_SECONDS", 0.3)
        os.kill(reader._decoder.pid, signal.SIGSTOP)
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


def test_it_leaves_with_its_parent(decord):
    decord._process.stdin.close()
    assert decord._process.wait(20) == 0


def test_it_is_found_from_any_folder(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with DecordReader(str(clip)) as reader:
        assert len(list(reader.frames())) == 60
