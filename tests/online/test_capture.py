import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import numpy as np
import pytest
from streaming import next_clip

from ingest.live.camera import Camera
from ingest.live.capture import Captured
from ingest.live.devices import parse_device
from ingest.store.records import RecordSettings
from online.capture import capture_and_serve
from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.config import load_preset
from online.errors import ServerError
from online.queue.client import Client
from online.queue.server_process import ServerProcess
from online.session.start import train_connected
from online.session.status import Status

BOUND = 30.0
PICTURE = "lavfi:testsrc2=size=64x48:rate=50,realtime"
WANT = ClipRequest(clip=ClipConfig(clip_length=8))


class Recording(threading.Thread):
    """A capture with a server, until it is stopped."""

    def __init__(self, store, address: str) -> None:
        super().__init__()
        self.stop = threading.Event()
        self.served = threading.Event()
        self.seen: list[Captured] = []
        self._store = store
        self._address = address

    def run(self) -> None:
        settings = RecordSettings(size=16, reader="camera")
        with Camera(parse_device(PICTURE), settings) as camera:
            capture_and_serve(
                camera,
                self._store,
                self._address,
                ready=lambda address: self.served.set(),
                name="a",
                progress=self.seen.append,
                should_stop=self.stop.is_set,
            )


@contextmanager
def recording(store, address: str) -> Iterator[Recording]:
    thread = Recording(store, address)
    thread.start()
    try:
        assert thread.served.wait(BOUND)
        yield thread
    finally:
        thread.stop.set()
        thread.join(BOUND)
        assert not thread.is_alive()


@pytest.fixture
def address(tmp_path) -> str:
    return f"ipc://{tmp_path}/live/s"


def test_clips_reach_a_trainer_while_the_camera_is_recorded(store, address):
    with recording(store, address), Client(address) as client:
        client.open(WANT)
        clips = [next_clip(client, BOUND) for _ in range(12)]
        now_ns = time.time_ns()
        (summary,) = client.recordings()
    assert (summary.live, summary.complete) == (True, False)
    assert [clip.spec.start for clip in clips] == list(range(0, 96, 8))
    for clip in clips:
        assert clip.frames.captured_ns is not None
        assert (np.diff(clip.frames.captured_ns) >= 0).all()
        assert clip.last_captured_ns < now_ns
    assert store.commit("a").complete


def test_a_server_that_dies_is_told_of_and_the_camera_is_recorded_on(
    store, address, monkeypatch, caplog
):
    started = []
    enter = ServerProcess.__enter__

    def remember(self):
        started.append(self)
        return enter(self)

    monkeypatch.setattr(ServerProcess, "__enter__", remember)
    with recording(store, address) as thread:
        os.kill(started[0].pid, signal.SIGKILL)
        wait_for(lambda: caplog.messages)
        after = len(thread.seen)
        wait_for(lambda: len(thread.seen) >= after + 3)
    assert store.commit("a").complete
    (warning,) = caplog.messages
    assert "killed by SIGKILL; the camera is still recorded, but no longer served" in warning


def test_an_address_in_use_is_refused_before_anything_is_recorded(store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        camera = Camera(parse_device(PICTURE), RecordSettings(size=16, reader="camera"))
        with camera, pytest.raises(ServerError, match="another program is bound here"):
            capture_and_serve(
                camera,
                store,
                address,
                ready=pytest.fail,
                progress=pytest.fail,
                should_stop=lambda: False,
            )
    assert store.recordings() == []


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_model_learns_from_a_camera_to_its_end_and_is_probed(store, record, address, tmp_path):
    """The camera ends, then the stream, then the run, and the server stays until it has probed."""
    settings = (
        *("training.batch_clips=2", "training.precision=float32", "stream.clip_length=8"),
        *("replay.samples_per_insert=1", "evaluation.train_clips=4", "evaluation.held_out_clips=2"),
        *("probe.steps=3", "evaluation.panel_frames=1"),
    )
    record("b", 100, size=16)  # a camera holds out its fifth minute, and has none
    enough = threading.Event()

    def observe(status: Status) -> None:
        if status.step >= 12:
            enough.set()

    camera = Thread(target=record_until, args=(enough, store, address))
    camera.start()
    try:
        wait_for(lambda: "a" in store.recordings())
        outcome = train_connected(
            [address], tmp_path / "run", load_preset("demo", settings), observe=observe
        )
    finally:
        enough.set()
        camera.join(BOUND)
    assert not camera.is_alive()
    assert outcome.reason == "stream ended"
    assert outcome.step >= 12
    assert outcome.evaluation is not None
    assert outcome.report is not None
    assert store.commit("a").complete


def record_until(enough: threading.Event, store, address: str) -> None:
    settings = RecordSettings(size=16, reader="camera")
    with Camera(parse_device(PICTURE), settings) as camera:
        capture_and_serve(
            camera,
            store,
            address,
            ready=lambda address: None,
            name="a",
            progress=lambda captured: None,
            should_stop=enough.is_set,
        )


def wait_for(holds) -> None:
    deadline = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
