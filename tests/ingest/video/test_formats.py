"""Every container with every codec that it can hold: each frame once, at its time, as encoded."""

from pathlib import Path

import av
import numpy as np
import pytest

from ingest.video.pyav_reader import PyAVReader

CODECS = {
    "H.264": ("libx264", {"preset": "ultrafast", "crf": "12"}),
    "HEVC": ("libx265", {"preset": "ultrafast", "crf": "12", "x265-params": "log-level=none"}),
    "VP9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "0"}),
    "AV1": ("libsvtav1", {"preset": "8", "crf": "5", "svtav1-params": "lp=1"}),
    "MPEG-4": ("mpeg4", {"qscale": "2", "b": "8M", "bf": "2"}),
    "MJPEG": ("mjpeg", {"qmin": "1", "qmax": "2", "b": "20M"}),
}
CONTAINERS = {
    "mp4": ("H.264", "HEVC", "VP9", "AV1", "MPEG-4", "MJPEG"),
    "mkv": ("H.264", "HEVC", "VP9", "AV1", "MPEG-4", "MJPEG"),
    "mov": ("H.264", "HEVC", "MPEG-4", "MJPEG"),
    "avi": ("H.264", "MPEG-4", "MJPEG"),
    "webm": ("VP9", "AV1"),
    "ts": ("H.264", "HEVC", "MPEG-4"),
}
OWN_START = {"avi", "ts"}  # a frame late with B-frames; after the muxer's delay
FRAMES = 24


@pytest.mark.parametrize(
    ("container", "codec"), [(one, codec) for one, codecs in CONTAINERS.items() for codec in codecs]
)
def test_every_frame_comes_once_at_its_time_and_as_encoded(container, codec, media, tmp_path):
    encoder, options = CODECS[codec]
    assert encoder in av.codecs_available
    originals = list(media.square(FRAMES))
    path = media.video(tmp_path / f"clip.{container}", originals, codec=encoder, options=options)
    with PyAVReader(str(path), size=None) as reader:
        frames = list(reader.frames())
    assert len(frames) == reader.counters.stored == reader.counters.decoded == FRAMES
    assert [frame.gap for frame in frames] == [True] + [False] * (FRAMES - 1)
    times_ns = np.array([frame.pts_ns for frame in frames])
    if container in OWN_START:
        times_ns -= times_ns[0]
    assert np.abs(times_ns - 40_000_000 * np.arange(FRAMES)).max() <= tick_ns(path)
    for frame, original in zip(frames, originals, strict=True):
        assert np.abs(frame.image.astype(int) - original).mean() < 4


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize(
    "title", ["\u96e8\u591c".encode("gbk"), "\u590f".encode("shift-jis"), b"caf\xe9"]
)
def test_a_title_that_is_not_utf_8_is_no_reason_to_refuse_a_file(container, title, media, tmp_path):
    path = media.video(tmp_path / f"clip.{container}", 3, codec="mpeg4", title="#" * len(title))
    data = path.read_bytes()
    assert b"#" * len(title) in data
    path.write_bytes(data.replace(b"#" * len(title), title))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    with PyAVReader(str(path), size=None) as reader:
        assert len(list(reader.frames())) == 3


def tick_ns(path: Path) -> float:
    """What a container rounds times to, and at most a millisecond."""
    with av.open(path) as container:
        time_base = container.streams.video[0].time_base
    assert time_base is not None
    return 1e9 * min(float(time_base), 1e-3)
