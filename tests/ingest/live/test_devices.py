from datetime import UTC, datetime

import pytest

from ingest.errors import VideoError
from ingest.live.connecting import connected
from ingest.live.devices import parse_device

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "url", "container", "name"),
    [
        ("v4l2:/dev/video0", "/dev/video0", "v4l2", "video0"),
        ("/dev/video2", "/dev/video2", "v4l2", "video2"),
        ("0", "/dev/video0", "v4l2", "video0"),
        ("HTTP://porch:81/stream", "http://porch:81/stream", None, "porch-81-stream"),
        ("srt://porch:9000", "srt://porch:9000", "mpegts", "porch-9000"),
        ("rtmp://porch/live/a", "rtmp://porch/live/a", None, "porch-live-a"),
        ("rtp://239.0.0.1:5004", "rtp://239.0.0.1:5004", None, "239.0.0.1-5004"),
        ("x11grab::0.0+10,20", ":0.0+10,20", "x11grab", "x11grab"),
        ("lavfi:testsrc2=rate=30,realtime", "testsrc2=rate=30,realtime", "lavfi", "lavfi"),
        ("tcp://127.0.0.1:5000", "tcp://127.0.0.1:5000", "mpegts", "127.0.0.1-5000"),
        ("udp://:5000?reuse=1", "udp://:5000?reuse=1", "mpegts", "5000"),
        ("rtsp://me:pw@porch/cam 1", "rtsp://me:pw@porch/cam 1", None, "porch-cam-1"),
    ],
)
def test_a_word_says_what_to_open_and_gives_a_name(word, url, container, name):
    device = parse_device(word)
    assert (device.url, device.format) == (url, container)
    assert device.recording_name(NOON) == f"{name}-20260101-120000"


def test_a_password_is_used_and_never_shown():
    device = parse_device("rtsp://me:p@ss@porch:554/stream")
    assert "p@ss" in device.url
    assert str(device) == "rtsp://me:***@porch:554/stream"
    assert "p@ss" not in repr(device)
    with pytest.raises(VideoError) as caught:
        parse_device("ftp://me:p@ss@porch/stream")
    assert "p@ss" not in str(caught.value)


def test_options_go_to_ffmpeg_above_our_own():
    device = parse_device("rtsp://porch/", ["rtsp_transport=udp", "user_agent=a=b"])
    assert device.options == {"rtsp_transport": "udp", "user_agent": "a=b"}


@pytest.mark.parametrize("option", ["framerate", "=30", "framerate="])
def test_an_option_that_is_not_key_and_value_is_refused(option):
    with pytest.raises(VideoError, match=f"--option {option}: not KEY=VALUE"):
        parse_device("v4l2:/dev/video0", [option])


@pytest.mark.parametrize(
    "word", ["video0", "camera.sdp", "v4l2:", "tcp:host", "tcp://", "ftp://a", ""]
)
def test_a_word_for_no_device_is_refused(word):
    with pytest.raises(VideoError, match="not a device; use /dev/video0 or 0, rtsp://"):
        parse_device(word)


@pytest.mark.parametrize("word", ["udp://@239.1.1.1:99999", "rtsp://u:p@[::1]:65536/live"])
def test_a_port_that_does_not_exist_is_refused_at_once(word):
    with pytest.raises(VideoError, match=r"^(udp|rtsp):.*: port \d+ does not exist; the last"):
        parse_device(word)
    assert parse_device(word.replace("99999", "5004").replace("65536", "65535")).url


@pytest.mark.parametrize(
    ("word", "options", "message"),
    [
        ("99", [], "v4l2:/dev/video99: No such file or directory; th"),
        ("/dev/null", [], "is it a camera, free and yours to read (group video)?"),
        ("v4l2:/dev/video99", [], "/dev/video99: No such file or directory; th"),
        ("tcp://127.0.0.1:9", [], "tcp://127.0.0.1:9: Connection refused; is it sending there"),
        ("lavfi:nosuchfilter", [], "Filter not found; is it a filter graph"),
        ("lavfi:testsrc2", ["probesize=many"], "Invalid argument"),
    ],
)
def test_a_device_that_does_not_open_is_one_line(word, options, message, capfd):
    with pytest.raises(VideoError) as caught, connected(parse_device(word, options)):
        pass
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_file_is_not_a_camera(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"")
    with pytest.raises(VideoError, match=r"clip\.mp4: not a device but a file .*`setcon ingest`"):
        parse_device(str(path))
