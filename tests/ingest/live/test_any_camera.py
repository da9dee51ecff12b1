"""What people have for cameras, each from a real server of this machine."""

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError

from ingest.errors import VideoError
from ingest.frame import Frames
from ingest.jobs import ingest_sources
from ingest.live import camera as camera_module
from ingest.live.camera import Camera
from ingest.live.devices import parse_device
from ingest.store.records import RecordSettings

BOUND = 30.0
SETTINGS = RecordSettings(size=16, reader="camera")
STEP_SECONDS = 0.1
SOON = ["analyzeduration=200000"]
BOUNDARIES = {"esp32": b"123456789000000000000987654321", "streamer": b"boundarydonotcross"}


def take(camera: Camera, length: int) -> Frames:
    for _ in range(int(BOUND / camera_module.POLL_SECONDS)):
        taken = camera.take(length)
        if taken is not None:
            assert taken.frames is not None
            return taken.frames
    raise AssertionError(f"no {length} frames in {BOUND} s")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def running(send: Callable[[threading.Event], None]) -> Iterator[None]:
    """A sender on a thread, until the context is left."""
    ended = threading.Event()
    thread = threading.Thread(target=send, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(BOUND)
        assert not thread.is_alive()


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        with running(lambda _: server.serve_forever(0.05)):
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()


def jpegs() -> list[bytes]:
    """Ever brighter, and with noise: tiny ones would be taken for pictures without a frame."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = 160, 120, "yuvj420p"
    context.time_base = Fraction(1, 25)
    noise = np.random.default_rng(0).integers(0, 20, (120, 160, 1), np.uint8)
    pictures: list[bytes] = []
    for index in range(32):
        image = np.repeat(noise + np.uint8(7 * index), 3, axis=2)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")
        pictures += [bytes(packet) for packet in context.encode(frame)]
    return pictures


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return jpegs()


class WebCamera(BaseHTTPRequestHandler):
    """MJPEG at ten pictures a second, as the firmware of ESP32-CAM and mjpg-streamer send it."""

    protocol_version = "HTTP/1.1"
    pictures: list[bytes]

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        self.close_connection = True
        self.send_response(200)
        self.send_header(
            "Content-Type", f"multipart/x-mixed-replace;boundary={BOUNDARIES[kind].decode()}"
        )
        if kind == "esp32":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(ConnectionError):
            getattr(self, kind)(b"--" + BOUNDARIES[kind] + b"\r\n")

    def esp32(self, boundary: bytes) -> None:
        for index in count():
            for piece in (b"\r\n" + boundary, self._head(index), self._picture(index)):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(STEP_SECONDS)

    def streamer(self, boundary: bytes) -> None:
        self.wfile.write(boundary)
        for index in count():
            self.wfile.write(self._head(index) + self._picture(index) + b"\r\n" + boundary)
            time.sleep(STEP_SECONDS)

    def _head(self, index: int) -> bytes:
        length = len(self._picture(index))
        return b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % length

    def _picture(self, index: int) -> bytes:
        return self.pictures[index % len(self.pictures)]


@pytest.fixture
def web_camera(pictures) -> Iterator[str]:
    handler = type("OfPictures", (WebCamera,), {"pictures": pictures})
    with serving(handler) as address:
        yield address


@pytest.mark.parametrize("kind", BOUNDARIES)
def test_mjpeg_of_web_cameras_has_the_times_at_which_it_comes(kind, web_camera, monkeypatch):
    """FFmpeg itself gives 25 pictures a second to a stream that does not say."""
    monkeypatch.setattr(camera_module, "MEASURED_SECONDS", 0.4)
    with Camera(parse_device(f"{web_camera}/{kind}"), SETTINGS) as camera:
        assert camera.fps is not None
        assert camera.fps <= 12.5
        frames = take(camera, 9)
    assert frames.gap.sum() == 1
    seconds = (frames.pts_ns[-1] - frames.pts_ns[0]) / 1e9
    assert seconds >= 6 * STEP_SECONDS  # two may have come before the first was shown
    assert (np.diff(frames.images.mean(axis=(1, 2, 3))) > 4).all()


def test_ingest_sends_a_web_camera_to_capture(web_camera, tmp_path):
    (outcome,) = ingest_sources([f"{web_camera}/esp32"], tmp_path / "store", SETTINGS)
    assert "esp32: a live source; record it with `setcon capture http://" in str(outcome.error)


@pytest.fixture(scope="module")
def playlists(media, tmp_path_factory) -> Path:
    """The same footage as HLS that still grows and HLS that is complete."""
    folder = tmp_path_factory.mktemp("hls")
    for name, more in (("live", {"hls_flags": "omit_endlist"}), ("whole", {})):
        options = {"hls_time": "1", "hls_list_size": "0"} | more
        with av.open(str(folder / f"{name}.m3u8"), "w", format="hls", options=options) as out:
            stream = out.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 25
            for image in media.square(75):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def test_a_playlist_that_grows_is_captured_and_a_whole_one_is_ingested(playlists, tmp_path):
    with serving(functools.partial(Quiet, directory=str(playlists))) as address:
        with Camera(parse_device(f"{address}/live.m3u8", SOON), SETTINGS) as camera:
            frames = take(camera, 15)
        assert (np.diff(frames.pts_ns) == 40_000_000).all()
        refused = pytest.raises(VideoError, match=r"a recording of 3\.0 s, not live; use `setcon")
        with refused, Camera(parse_device(f"{address}/whole.m3u8"), SETTINGS):
            pass
        grows, whole = ingest_sources(
            [f"{address}/live.m3u8", f"{address}/whole.m3u8"],
            tmp_path / "store",
            RecordSettings(size=16),
        )
    assert "still grows; record it with `setcon capture`" in str(grows.error)
    assert whole.recorded is not None, whole.error
    assert whole.recorded.commit.length == 75


def y4m(length: int) -> bytes:
    planes = [bytes([16 + 2 * index]) * (64 * 48) + b"\x80" * (32 * 48) for index in range(length)]
    return b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C420jpeg\n" + b"".join(b"FRAME\n" + p for p in planes)


def test_a_pipe_is_waited_for_and_a_slow_writer_is_not_given_the_rate_of_its_header(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def write(_: threading.Event) -> None:
        head, *frames = y4m(12).split(b"FRAME\n")
        with path.open("wb", buffering=0) as pipe:
            pipe.write(head)
            for frame in frames:
                pipe.write(b"FRAME\n" + frame)
                time.sleep(STEP_SECONDS)

    with running(write), Camera(parse_device(str(path)), SETTINGS) as camera:
        frames = take(camera, 11)
    assert (frames.pts_ns[-1] - frames.pts_ns[0]) / 1e9 >= 8 * STEP_SECONDS


RTMP_SENDER = """
    import sys, time, av
    while True:
        time.sleep(0.05)
        try:
            with av.open(sys.argv[1]) as source, av.open(sys.argv[2], "w", format="flv") as to:
                stream = to.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.dts is not None:
                        packet.stream = stream
                        to.mux(packet)
        except av.error.ConnectionRefusedError:  # it does not listen yet
            continue
"""


def test_frames_pushed_over_rtmp_are_captured(media, tmp_path):
    address = f"rtmp://127.0.0.1:{free_port()}/live/camera"
    path = media.video(tmp_path / "clip.flv", 50, gop=10, options={"bf": "0"})
    # in a process of its own: PyAV holds Python's lock while it waits for the other end
    run = [sys.executable, "-c", textwrap.dedent(RTMP_SENDER), str(path), address]
    with subprocess.Popen(run, stderr=subprocess.DEVNULL) as sender:
        try:
            with Camera(parse_device(address, ["listen=1"]), SETTINGS) as camera:
                frames = take(camera, 40)
        finally:
            sender.kill()
    assert (np.diff(frames.pts_ns) == 40_000_000).all()


def send(path: Path, address: str, container: str) -> None:
    with av.open(str(path)) as source, av.open(address, "w", format=container) as to:
        stream = to.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
                time.sleep(0.002)


@pytest.mark.parametrize(
    ("host", "kind"),
    [("127.0.0.1", "rtp_mpegts"), ("127.0.0.1", "rtp"), ("239.255.17.4", "mpegts")],
)
def test_datagrams_of_rtp_and_to_a_group_are_captured(host, kind, media, tmp_path):
    port = free_port(socket.SOCK_DGRAM) & ~1  # RTP has even ports
    scheme = "udp" if kind == "mpegts" else "rtp"
    address = f"{scheme}://{host}:{port}?localaddr=127.0.0.1"
    options = {"bf": "0", "x264-params": "repeat-headers=1"}
    path = media.video(tmp_path / "clip.ts", 100, gop=10, options=options)
    word = address
    if kind == "rtp":
        word = str(tmp_path / "camera.sdp")
        lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", f"c=IN IP4 {host}", "t=0 0"]
        lines += [f"m=video {port} RTP/AVP 96", "a=rtpmap:96 H264/90000", ""]
        Path(word).write_text("\r\n".join(lines))

    def repeat(ended: threading.Event) -> None:
        while not ended.is_set():
            with suppress(FFmpegError):  # refused, where it does not listen yet
                send(path, address, kind)

    with running(repeat), Camera(parse_device(word, SOON), SETTINGS) as camera:
        frames = take(camera, 15)
    assert (np.diff(frames.pts_ns) > 0).all()


def has_srt() -> bool:
    command = shutil.which("ffmpeg")
    if command is None:
        return False
    listed = subprocess.run(
        [command, "-hide_banner", "-protocols"], capture_output=True, text=True, check=False
    )
    return "srt" in listed.stdout.split()


@pytest.mark.skipif(not has_srt(), reason="needs an ffmpeg with SRT: it is the camera, too")
def test_srt_is_captured_through_the_command_that_has_it(media, tmp_path):
    path = media.video(tmp_path / "clip.ts", 100, gop=10, options={"bf": "0"})
    port = free_port(socket.SOCK_DGRAM)
    options = ["-nostdin", "-loglevel", "quiet", "-re", "-stream_loop", "-1", "-i", str(path)]
    address = f"srt://127.0.0.1:{port}"
    with subprocess.Popen(
        ["ffmpeg", *options, "-c", "copy", "-f", "mpegts", f"{address}?mode=listener"]
    ) as sender:
        try:
            with Camera(parse_device(address, SOON), SETTINGS) as camera:
                frames = take(camera, 10)
        finally:
            sender.kill()
    assert (np.diff(frames.pts_ns) > 0).all()


LISTENER = """
    import sys
    from ingest.live.camera import Camera
    from ingest.live.devices import parse_device
    from ingest.store.records import RecordSettings
    with Camera(parse_device(sys.argv[1]), RecordSettings(size=16, reader="camera")):
        pass
"""


@pytest.mark.skipif(not has_srt(), reason="needs an ffmpeg with SRT")
def test_ctrl_c_leaves_no_relay_that_waits_for_a_sender(monkeypatch, tmp_path):
    started, command = tmp_path / "started", tmp_path / "ffmpeg"
    command.write_text(
        f'#!/bin/sh\ncase "$*" in *pipe:1) echo $$ > {started};; esac\n'
        f'exec {shutil.which("ffmpeg")} "$@"\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    address = f"srt://127.0.0.1:{free_port(socket.SOCK_DGRAM)}?mode=listener"
    run = [sys.executable, "-c", textwrap.dedent(LISTENER), address]
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as camera:
        try:
            deadline = time.monotonic() + BOUND
            while not (started.exists() and started.read_text().endswith("\n")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            camera.send_signal(signal.SIGINT)
            _, printed = camera.communicate(timeout=BOUND)  # which the relay would hold open
        except BaseException:
            camera.kill()
            if started.exists():
                os.kill(int(started.read_text()), signal.SIGKILL)
            raise
    assert "KeyboardInterrupt" in printed


def test_srt_without_the_command_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    camera = Camera(parse_device("srt://127.0.0.1:9?passphrase=secret-words"), SETTINGS)
    with pytest.raises(VideoError) as caught, camera:
        pass
    assert "no srt, and the ffmpeg command is not installed; install" in str(caught.value)
    assert "secret" not in str(caught.value)
