"""Cameras that go silent, end, and come back, over real sockets."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from ingest import camera as camera_module
from ingest import devices
from ingest.camera import Camera, SourceClock
from ingest.devices import parse_device
from ingest.errors import VideoError
from ingest.frame import Frames
from ingest.store import RecordSettings

BOUND = 20.0
SETTINGS = RecordSettings(size=16, reader="camera")
SECOND = 1_000_000_000


@contextmanager
def sending(data: bytes, *, hold: bool) -> Iterator[str]:
    """A server that sends everybody the same bytes and then falls silent, or hangs up."""

    def serve() -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                peer, _ = listener.accept()
                peers.append(peer)
                with suppress(OSError):
                    peer.sendall(data)
                if not hold:
                    peer.close()

    peers: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(BOUND)
            for peer in peers:
                peer.close()


@pytest.fixture(scope="module")
def stream(media, tmp_path_factory) -> bytes:
    """60 frames as MPEG-TS, of which the first 10 show nothing without the key frame before."""
    path = tmp_path_factory.mktemp("stream") / "stream.ts"
    media.video(path, 60, codec="mpeg2video", gop=10, options={"bf": "0"})
    return path.read_bytes()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(devices, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(devices, "OPEN_SECONDS", 1.0)
    monkeypatch.setattr(camera_module, "FIRST_PAUSE_SECONDS", 0.05)


def take(camera: Camera, count: int) -> Frames:
    for _ in range(int(BOUND / camera_module.POLL_SECONDS)):
        taken = camera.take(count)
        if taken is not None:
            assert taken.frames is not None
            return taken.frames
    raise AssertionError(f"no {count} frames in {BOUND} s")


@pytest.mark.parametrize("hold", [True, False])
def test_a_camera_that_falls_silent_or_hangs_up_is_connected_to_again(stream, hold, caplog):
    with sending(stream, hold=hold) as address, Camera(parse_device(address), SETTINGS) as camera:
        frames = take(camera, 130)  # of three connections
        assert camera.reconnects >= 2
    reason = "it sends nothing" if hold else "its stream has ended"
    assert caplog.messages[0] == (
        f"{address}: {reason}; is it still sending?; connecting again in 0.05 s"
    )
    (second, third) = frames.gap.nonzero()[0][1:]
    assert frames.gap[0]
    assert 50 <= second <= 60
    assert third - second == second
    assert (frames.images[second] == frames.images[0]).all()
    assert (frames.pts_ns[1:] > frames.pts_ns[:-1]).all()
    assert frames.pts_ns[second] - frames.pts_ns[second - 1] >= 40_000_000


def test_what_comes_before_a_key_frame_is_counted_and_nothing_is_printed(stream, capfd):
    cut = stream[len(stream) // 12 // 188 * 188 :]
    with sending(cut, hold=True) as address, Camera(parse_device(address), SETTINGS) as camera:
        take(camera, 40)
    assert capfd.readouterr().err == ""


def test_a_camera_that_sends_no_video_is_one_line(media, tmp_path):
    silence = media.audio(tmp_path / "silence.ts").read_bytes()
    with sending(silence, hold=False) as address:
        camera = Camera(parse_device(address), SETTINGS)
        with pytest.raises(VideoError, match="no video stream, only audio"), camera:
            pass


def test_a_camera_that_never_shows_a_frame_is_one_line():
    with sending(b"", hold=True) as address:
        camera = Camera(parse_device(address), SETTINGS)
        with pytest.raises(VideoError, match="it sends nothing; is it sending there"), camera:
            pass


def test_waiting_for_the_first_frame_can_be_given_up(monkeypatch):
    monkeypatch.setattr(devices, "OPEN_SECONDS", BOUND)
    with sending(b"", hold=True) as address:
        camera = Camera(parse_device(address), SETTINGS, should_stop=lambda: True)
        with pytest.raises(VideoError, match="stopped before its first frame"), camera:
            pass


def test_fewer_frames_per_second_are_kept_where_they_are_asked_for():
    device = parse_device("lavfi:testsrc2=size=64x48:rate=50")
    with Camera(device, RecordSettings(size=16, fps=10.0, reader="camera")) as camera:
        assert camera.fps == 10
        frames = take(camera, 20)
    assert ((frames.pts_ns[1:] - frames.pts_ns[:-1]) == SECOND // 10).all()


def test_a_source_clock_begins_at_zero_and_jumps_only_with_the_camera():
    clock = SourceClock()
    assert clock.since_began(500 * SECOND, 7 * SECOND) == 0
    assert clock.since_began(501 * SECOND, 9 * SECOND) == 1 * SECOND  # it arrived late
    clock.connected()
    assert clock.since_began(3 * SECOND, 17 * SECOND) == 10 * SECOND
    assert clock.since_began(4 * SECOND, 18 * SECOND) == 11 * SECOND
    assert clock.since_began(90_000 * SECOND, 19 * SECOND) == 12 * SECOND  # the source was set
    assert clock.since_began(None, 20 * SECOND) == 13 * SECOND
