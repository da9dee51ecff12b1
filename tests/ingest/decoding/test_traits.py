"""Files whose times are not those of the frames: the order in which frames are shown is right."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.video.pyav_reader import PyAVReader

FRAMES = 60
INTERVAL_NS = 40_000_000
CODECS = {
    "H.264": ("libx264", {"bf": "3", "x264-params": "b-adapt=0:scenecut=0"}),
    "HEVC": ("libx265", {"x265-params": "log-level=none:bframes=4:b-adapt=0:scenecut=0"}),
    "MPEG-4": ("mpeg4", {"bf": "2", "qscale": "3"}),
    "MPEG-2": ("mpeg2video", {"bf": "2", "qscale": "3"}),
}


@pytest.fixture(scope="module")
def encoded(media, tmp_path_factory) -> dict[str, Path]:
    """Each codec with frames that are stored in another order than they are shown in."""
    folder = tmp_path_factory.mktemp("encoded")
    return {
        name: media.video(
            folder / f"{name}.mkv", FRAMES, codec=codec, gop=20, options={**options, "threads": "1"}
        )
        for name, (codec, options) in CODECS.items()
    }


def retimed(
    source: Path, target: Path, times: Callable[[list[int]], list[int]], *, step: int = 1
) -> Path:
    """Copy a video; its packets, in file order, get the n-th of other `times`."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copied = out.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        base = stream.time_base
        assert base is not None
        tick = round(INTERVAL_NS / 1e9 / base)
        shown = [round(packet.pts / tick) for packet in packets if packet.pts is not None]
        for index, (packet, pts) in enumerate(zip(packets, times(shown), strict=True)):
            packet.pts, packet.dts = pts * step * tick, index * step * tick
            packet.stream = copied
            out.mux(packet)
    return target


def frames_of(path: Path, *, from_pts_ns: int | None = None):
    with PyAVReader(str(path), size=32) as reader:
        return list(reader.frames(from_pts_ns=from_pts_ns)), reader.counters


def assert_in_order(path: Path, original: Path) -> None:
    """All frames in the order in which they are shown, at one rate, without a break."""
    frames, counters = frames_of(path)
    assert (counters.stored, counters.gaps) == (FRAMES, 1)
    steps = np.diff([frame.pts_ns for frame in frames])
    assert np.abs(steps - INTERVAL_NS).max() <= 1_000_000
    for frame, whole in zip(frames, frames_of(original)[0], strict=True):
        np.testing.assert_array_equal(frame.image, whole.image)


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        *(("H.264", container) for container in ("mkv", "flv", "ts", "mxf")),
        ("HEVC", "mkv"),
        ("MPEG-4", "mkv"),
        ("MPEG-2", "mxf"),
    ],
)
def test_times_at_which_packets_are_decoded_are_not_those_of_their_frames(
    codec, container, encoded, tmp_path
):
    """As of muxers that write the decoding time in place of the presentation time."""
    path = retimed(
        encoded[codec], tmp_path / f"video.{container}", lambda shown: list(range(len(shown)))
    )
    assert_in_order(path, encoded[codec])


def test_times_that_another_order_was_expected_for_are_given_to_frames_in_theirs(encoded, tmp_path):
    """As FFmpeg derives those of Xvid in AVI: B-frames come where it expects the one after them."""

    def swapped(shown: list[int]) -> list[int]:
        later = [time + 1 for time in shown]
        for index in range(3, len(shown) - 1, 3):
            later[index], later[index - 2] = later[index - 2], later[index]
        return later

    path = retimed(encoded["MPEG-4"], tmp_path / "video.mp4", swapped)
    assert_in_order(path, encoded["MPEG-4"])


@pytest.mark.parametrize("codec", ["H.264", "MPEG-2"])
def test_program_streams_that_lack_some_times_have_frames_at_a_steady_rate(codec, media, tmp_path):
    encoder, options = CODECS[codec]
    path = media.video(tmp_path / "video.mpg", FRAMES, codec=encoder, options=options)
    assert_in_order(path, path)


def test_a_variable_rate_keeps_its_steps_where_times_are_in_decoding_order(encoded, tmp_path):
    path = retimed(encoded["H.264"], tmp_path / "video.mkv", lambda shown: list(range(len(shown))))
    times = np.cumsum(np.random.default_rng(0).choice([1, 2, 3], FRAMES)).tolist()
    path = tmp_path / "varies.mkv"
    with av.open(str(encoded["H.264"])) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet, time in zip(
            (packet for packet in container.demux(stream) if packet.size), times, strict=True
        ):
            packet.pts = packet.dts = 20 * time
            packet.stream = copied
            out.mux(packet)
    frames, counters = frames_of(path)
    assert (counters.stored, counters.gaps) == (FRAMES, 1)
    steps = np.diff([frame.pts_ns for frame in frames]) // 20_000_000
    late = next(late for late in range(4) if times[late] * 20_000_000 == frames[0].pts_ns)
    np.testing.assert_array_equal(steps[:-4], np.diff(times)[late : late + FRAMES - 5])


@pytest.mark.parametrize("start", [1, 19, 20, 21, 40, 55])
def test_a_pass_from_any_frame_gives_the_same_times(start, encoded, tmp_path):
    path = retimed(encoded["H.264"], tmp_path / "video.mp4", lambda shown: list(range(len(shown))))
    whole, _ = frames_of(path)
    part, _ = frames_of(path, from_pts_ns=whole[start].pts_ns)
    assert [frame.pts_ns for frame in part] == [frame.pts_ns for frame in whole[start:]]
    for frame, expected in zip(part, whole[start:], strict=True):
        np.testing.assert_array_equal(frame.image, expected.image)
