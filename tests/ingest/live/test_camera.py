"""Cameras that go silent, end, and come back, over real sockets."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from ingest.errors import VideoError
from ingest.frame import Frames
from ingest.live import camera as camera_module
from ingest.live import connecting
from ingest.live.camera import Camera
from ingest.live.devices import parse_device
from ingest.store.records import RecordSettings

BOUND = 20.0
SETTINGS = RecordSettings(size=16, reader="camera")
SECOND = 1_000_000_000


@contextmanager
def sending(data: bytes, *, hold: bool, later: bytes = b"") -> Iterator[str]:
    """A server that sends every client the same bytes and then falls silent, or hangs up.

    With `later` it hangs up on the first client, and sends that to the next one.
    """

    def serve() -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                peer, _ = listener.accept()
                peers.append(peer)
                is_first = len(peers) == 1
                with suppress(OSError):
                    peer.sendall(later if later and not is_first else data)
                if not hold or (later and is_first):
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
    monkeypatch.setattr(connecting, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(connecting, "OPEN_SECONDS", 1.0)
    monkeypatch.setattr(camera_module, "FIRST_PAUSE_SECONDS", 0.05)


def take(camera: Camera, count: int) -> Frames:
    for _ in range(int(BOUND / camera_module.POLL_SECONDS)):
        taken = camera.take(count)
        if taken is not None:
            assert taken.frames is not None
            return taken.frames
    raise AssertionError(f"no {count} frames in {BOUND} s")


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


def test_datagrams_are_received_and_a_silent_sender_is_waited_for(stream, caplog):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    packets = [stream[at : at + 7 * 188] for at in range(0, len(stream), 7 * 188)]
    speak, ended = threading.Event(), threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not ended.is_set():
                for packet in packets if speak.wait(0.05) else []:
                    out.sendto(packet, ("127.0.0.1", port))
                    ended.wait(0.002)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        speak.set()
        with Camera(parse_device(f"udp://127.0.0.1:{port}"), SETTINGS) as camera:
            take(camera, 20)
            speak.clear()
            wait_for(lambda: caplog.messages)
            speak.set()
            wait_for(lambda: camera.reconnects == 1)
            wait_for(lambda: take(camera, 1).gap[0])
    finally:
        ended.set()
        thread.join(BOUND)
    assert "it sends nothing" in caplog.messages[0]


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
    monkeypatch.setattr(connecting, "OPEN_SECONDS", BOUND)
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


def test_a_device_whose_read_hangs_is_connected_to_again(caplog):
    """FFmpeg's time limits do not reach into a filter that sleeps, nor into a driver."""
    graph = "testsrc2=size=64x48:rate=25,setpts=PTS+gte(N\\,20)*6/TB,realtime=limit=100"
    with Camera(parse_device(f"lavfi:{graph}"), SETTINGS) as camera:
        frames = take(camera, 30)
        assert camera.reconnects == 1
    assert "it hangs; is it still sending?; connecting again in 0.05 s" in caplog.messages[0]
    (again,) = frames.gap.nonzero()[0][1:]
    assert 18 <= again <= 20
    assert (frames.pts_ns[1:] > frames.pts_ns[:-1]).all()
    assert (frames.images[again] == frames.images[0]).all()


def test_a_camera_that_stays_away_is_tried_ever_more_seldom(stream, caplog, monkeypatch):
    monkeypatch.setattr(camera_module, "LONGEST_PAUSE_SECONDS", 0.3)
    with sending(stream, hold=False) as address:
        camera = Camera(parse_device(address), SETTINGS)
        camera.__enter__()
    try:
        ends_at = time.monotonic() + BOUND
        while len(caplog.messages) < 6 and time.monotonic() < ends_at:
            time.sleep(0.05)
    finally:
        camera.__exit__(None, None, None)
    pauses = [message.rpartition(" again in ")[2] for message in caplog.messages]
    growing = ["0.05 s", "0.1 s", "0.2 s", "0.3 s", "0.3 s"]
    assert pauses[-4:] in (growing[:4], growing[1:], ["0.2 s", *["0.3 s"] * 3])


def test_what_refers_to_a_lost_packet_is_not_shown_by_a_camera(media, tmp_path):
    path = media.video(tmp_path / "whole.ts", 100, gop=25, options={"sc_threshold": "0"})
    with (
        sending(path.read_bytes(), hold=True) as address,
        Camera(parse_device(address), SETTINGS) as camera,
    ):
        whole = {image.tobytes() for image in take(camera, 95).images}
    data = path.read_bytes()
    cut = data[: 60 * 188] + data[62 * 188 :]
    with sending(cut, hold=True) as address, Camera(parse_device(address), SETTINGS) as camera:
        frames = take(camera, 70)
    assert {image.tobytes() for image in frames.images} <= whole
    assert frames.gap.sum() >= 2


def test_a_camera_that_sends_half_as_many_frames_is_seen_on(media, tmp_path):
    times = [40 * index for index in range(120)] + [4800 + 80 * index for index in range(120)]
    options = {"bf": "0", "sc_threshold": "0"}
    path = media.video(tmp_path / "night.ts", 240, pts_ms=times, gop=10, options=options)
    data = path.read_bytes()
    with sending(data, hold=True) as address, Camera(parse_device(address), SETTINGS) as camera:
        frames = take(camera, 205)
    assert frames.gap[:100].sum() == 1
    assert frames.gap[-80:].sum() == 0


def test_a_camera_that_comes_back_at_a_lower_rate_loses_no_frame_and_has_one_gap(
    media, tmp_path, monkeypatch
):
    monkeypatch.setattr(connecting, "SILENT_SECONDS", BOUND)  # the second connection stays
    options = {"bf": "0", "sc_threshold": "0"}
    day, night = (
        media.video(tmp_path / f"{fps}.ts", 90, pts_ms=times, gop=10, options=options).read_bytes()
        for fps, times in (
            (30, [round(1000 * index / 30) for index in range(90)]),
            (12, [round(1000 * index / 12) for index in range(90)]),
        )
    )
    with (
        sending(day, hold=True, later=night) as address,
        Camera(parse_device(address), SETTINGS) as camera,
    ):
        frames = take(camera, 170)
        wait_for(lambda: camera.reconnects >= 1)
        camera.stop()
        taken = camera.take(100)
    assert taken is not None
    assert taken.counters.dropped == taken.counters.corrupt_packets == 0
    back = int(np.flatnonzero(frames.gap)[1])
    assert back >= 88  # the end of a stream that was cut is not shown
    assert np.flatnonzero(frames.gap).tolist() == [0, back]


def test_a_camera_without_key_frames_is_one_line(media, tmp_path, monkeypatch):
    monkeypatch.setattr(camera_module, "NO_FRAME_SECONDS", 0.2)
    options = {"bf": "0", "sc_threshold": "0"}
    path = media.video(tmp_path / "long.ts", 400, gop=400, options=options)
    data = path.read_bytes()
    keyless = data[len(data) // 8 // 188 * 188 :]

    def trickle() -> None:
        with suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                for at in range(0, len(keyless), 188):
                    peer.sendall(keyless[at : at + 188])
                    time.sleep(0.005)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle)
        thread.start()
        camera = Camera(parse_device(f"tcp://127.0.0.1:{listener.getsockname()[1]}"), SETTINGS)
        with pytest.raises(VideoError, match=r"packets for 0\.2 s, and no key frame"), camera:
            pass
        thread.join(BOUND)


def test_damage_before_a_camera_is_lost_is_counted(stream, monkeypatch):
    """In the last quarter of what is sent all slices are damaged: nothing sound follows."""
    monkeypatch.setattr(connecting, "SILENT_SECONDS", BOUND)  # it is lost because it hangs up
    data = bytearray(stream)
    for at in range(len(stream) * 3 // 4 // 188 * 188, len(stream), 188):
        for place in range(at + 60, at + 188, 9):
            data[place] = data[place] or 0x55  # no new start codes
            data[place] ^= 0x2A
    with sending(data, hold=False) as address, Camera(parse_device(address), SETTINGS) as camera:
        take(camera, 30)
        wait_for(lambda: camera.reconnects > 0)
        camera.stop()
        left = camera.take(10_000)
    counted = left.counters
    assert counted.corrupt_packets > 0
    assert counted.decoded >= counted.stored + counted.dropped  # one may be on its way
