from datetime import UTC, datetime

import pytest

from ingest.errors import VideoError
from ingest.live.devices import connect, parse_device

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "url", "container", "name"),
    [
        ("v4l2:/dev/video0", "/dev/video0", "v4l2", "video0"),
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
        parse_device("http://me:p@ss@porch/stream")
    assert "p@ss" not in str(caught.value)


def test_options_go_to_ffmpeg_above_our_own():
    device = parse_device("rtsp://porch/", ["rtsp_transport=udp", "user_agent=a=b"])
    assert device.options == {"rtsp_transport": "udp", "user_agent": "a=b"}


@pytest.mark.parametrize("option", ["framerate", "=30", "framerate="])
def test_an_option_that_is_not_key_and_value_is_refused(option):
    with pytest.raises(VideoError, match=f"--option {option}: not KEY=VALUE"):
        parse_device("v4l2:/dev/video0", [option])


@pytest.mark.parametrize(
    "word", ["video0", "/dev/video0", "v4l2:", "tcp:host", "tcp://", "ftp://a"]
)
def test_a_word_for_no_device_is_refused(word):
    with pytest.raises(VideoError, match="not a device; use v4l2:/dev/video0, rtsp://"):
        parse_device(word)


@pytest.mark.parametrize(
    ("word", "options", "message"),
    [
        ("v4l2:/dev/video99", [], "/dev/video99: No such file or directory; th"),
        ("tcp://127.0.0.1:9", [], "tcp://127.0.0.1:9: Connection refused; is it sending there"),
        ("lavfi:nosuchfilter", [], "Filter not found; is it a filter graph"),
        ("lavfi:testsrc2", ["probesize=many"], "Invalid argument"),
    ],
)
def test_a_device_that_does_not_open_is_one_line(word, options, message, capfd):
    with pytest.raises(VideoError) as caught:
        connect(parse_device(word, options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
