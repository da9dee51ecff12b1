"""Damaged files of every kind of codec: what comes out is undamaged, the rest is counted and a gap.

Whatever the number of cores.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.decoding import file_pass
from ingest.frame import Frame
from ingest.store.records import Counters
from ingest.video.pyav_reader import PyAVReader

FRAMES = 60
INTERVAL_NS = 40_000_000
KINDS = {  # file name: encoder, frames from key frame to key frame, options
    "h264.mp4": ("libx264", 30, {}),
    "open-gop.mp4": ("libx264", 12, {"x264-params": "open-gop=1"}),
    "hevc.mp4": ("libx265", 30, {"x265-params": "log-level=none"}),
    "hevc-open-gop.mp4": ("libx265", 12, {"x265-params": "log-level=none:open-gop=1"}),
    "vp9.mp4": ("libvpx-vp9", 20, {"deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", 20, {"preset": "8", "svtav1-params": "lp=1"}),
    "mpeg4.mp4": ("mpeg4", 12, {"bf": "2"}),
    "mpeg2.mp4": ("mpeg2video", 12, {"bf": "2"}),
    "mjpeg.avi": ("mjpeg", 1, {}),
    "intra-refresh.mp4": ("libx264", 30, {"x264-params": "intra-refresh=1:bframes=0"}),
    "h264.avi": ("libx264", 12, {"bf": "3"}),
    "open-gop.avi": (
        *("libx264", 12),
        {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"},
    ),
}


@dataclass(frozen=True, slots=True)
class Pass:
    """All that came out of a file."""

    frames: list[Frame]
    counters: Counters

    def told(self) -> tuple[list[tuple[int, bool, bytes]], Counters]:
        frames = [(frame.pts_ns, frame.gap, frame.image.tobytes()) for frame in self.frames]
        return frames, self.counters

    def numbers(self) -> list[int]:
        return [frame.pts_ns // INTERVAL_NS for frame in self.frames]


def read(path: Path) -> Pass:
    with PyAVReader(str(path), size=32) as reader:
        return Pass(list(reader.frames()), reader.counters)


@pytest.fixture(scope="module")
def originals(media, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("originals")
    return {
        name: media.video(folder / name, FRAMES, codec=codec, gop=gop, options=options)
        for name, (codec, gop, options) in KINDS.items()
    }


@pytest.fixture
def damaged(originals, media, tmp_path):
    def damage(name: str, numbers: range) -> Path:
        path = tmp_path / name
        path.write_bytes(originals[name].read_bytes())
        return media.overwrite_packets(path, numbers)

    return damage


@pytest.fixture
def use_threads(monkeypatch):
    """Decode as on a machine with that many cores."""

    def use(threads: int) -> None:
        def prepare_with_threads(stream, traits):
            context = prepare(stream, traits)
            context.thread_count = threads
            return context

        monkeypatch.setattr(file_pass, "prepare", prepare_with_threads)

    prepare = file_pass.prepare
    return use


def assert_undamaged(damaged: Pass, whole: Pass) -> None:
    """Each frame is one of the whole file, and none is missing without a gap after it."""
    images = {frame.pts_ns: frame.image for frame in whole.frames}
    for frame in damaged.frames:
        np.testing.assert_array_equal(frame.image, images[frame.pts_ns])
    for before, after in pairwise(damaged.frames):
        assert after.gap == (after.pts_ns - before.pts_ns > 1.5 * INTERVAL_NS)


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_damage_at_the_end_of_a_file_costs_its_own_frames(count, threads, damaged, use_threads):
    use_threads(threads)
    seen = read(damaged("h264.mp4", range(FRAMES - count, FRAMES)))
    assert seen.counters.stored == FRAMES - count
    assert seen.counters.corrupt_packets + seen.counters.dropped == count


@pytest.mark.parametrize(
    "numbers", [range(2, 3), range(31, 33), range(40, 42), range(50, 51)], ids=str
)
@pytest.mark.parametrize("name", KINDS)
def test_no_frame_that_refers_to_a_damaged_one_comes_out(
    name, numbers, originals, damaged, use_threads
):
    whole, path = read(originals[name]), damaged(name, numbers)
    assert whole.counters == Counters(decoded=FRAMES, stored=FRAMES, gaps=1)
    seen = []
    for threads in (1, 2, 16):
        use_threads(threads)
        seen.append(read(path))
    assert_undamaged(seen[0], whole)
    assert seen[0].told() == seen[1].told() == seen[2].told()
    counted = seen[0].counters
    assert counted.stored + counted.dropped + counted.corrupt_packets == FRAMES
    assert counted.corrupt_packets
    # in AVI only the order tells which frames lead a key frame, and some close the gate again
    most = KINDS[name][1] * (2 if name.endswith(".avi") else 1)
    assert counted.stored >= FRAMES - len(numbers) - most


def test_damage_in_a_picture_is_found_and_not_painted_over(originals, tmp_path):
    """Nine bytes within packets of H.264 are changed: most decoders show something for that."""
    whole = read(originals["h264.mp4"])
    with av.open(str(originals["h264.mp4"])) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(originals["h264.mp4"].read_bytes())
    for number in (33, 44, 52):
        position, size = packets[number]
        for part in (3, 5, 7):
            data[position + size * part // 9] ^= 0x55
    path = tmp_path / "flipped.mp4"
    path.write_bytes(data)
    seen = read(path)
    assert seen.counters.corrupt_packets
    assert_undamaged(seen, whole)


def cut_out(source: Path, target: Path, first: int, count: int) -> Path:
    """Leave packets of 188 bytes out of MPEG-TS."""
    data = source.read_bytes()
    target.write_bytes(data[: first * 188] + data[(first + count) * 188 :])
    return target


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
@pytest.mark.parametrize(("first", "count"), [(60, 3), (90, 16), (70, 48)])
def test_what_is_cut_out_of_a_stream_leaves_a_gap_and_no_wrong_frame(
    codec, first, count, media, tmp_path
):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    source = media.video(tmp_path / "whole.ts", 200, codec=codec, gop=25, options=options)
    whole = read(source)
    seen = read(cut_out(source, tmp_path / "cut.ts", first, count))
    assert 200 - 75 < seen.counters.stored < 200
    assert seen.counters.gaps >= 2
    assert_undamaged(seen, whole)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "mpeg4"])
@pytest.mark.parametrize("size", [188, 192])
def test_a_key_frame_that_lost_a_part_opens_nothing(codec, size, media, tmp_path):
    """FFmpeg marks the frame before it as corrupt, and not the key frame itself."""
    options = {"bf": "0", "sc_threshold": "0"}
    if codec == "libx265":
        options = {"x265-params": "log-level=none:pools=none:frame-threads=1:scenecut=0"}
    source = tmp_path / "whole.ts"
    muxer = {"mpegts_m2ts_mode": "1" if size == 192 else "0"}
    with av.open(str(source), "w", format="mpegts", options=muxer) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 20
        for image in media.square(80):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(source)) as container:
        keys = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe]
    whole, data = read(source), source.read_bytes()
    at = keys[1] // size * size + 2 * size
    path = tmp_path / "cut.ts"
    path.write_bytes(data[:at] + data[at + 2 * size :])
    seen = read(path)
    assert_undamaged(seen, whole)
    times = [frame.pts_ns for frame in whole.frames]
    assert not {frame.pts_ns for frame in seen.frames} & set(times[20:40])
    assert seen.counters.stored >= 80 - 20 - 2
    assert seen.counters.gaps <= 3  # the frame before the key frame may be shown in the midst


def test_packets_lost_without_an_error_leave_a_gap(media, tmp_path):
    """Matroska silently continues after what it cannot read, at its next cluster."""
    options = {"deadline": "realtime", "cpu-used": "8"}
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w", options={"cluster_time_limit": "800"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.gop_size = 50
        for image in media.square(200):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    whole = read(path)
    seen = read(media.overwrite_packets(path, range(85, 87)))
    assert seen.counters.stored < 200
    assert seen.counters.gaps == 2
    assert_undamaged(seen, whole)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "flv"])
@pytest.mark.parametrize("left_out", [1, 50])
def test_a_frame_that_a_recorder_left_out_costs_a_gap(left_out, container, media, tmp_path):
    """It was never encoded, so nothing refers to it; the only key frame is the first."""
    times = [40 * index for index in range(100) if index != left_out]
    options = {"bf": "0", "sc_threshold": "0"}
    path = tmp_path / f"video.{container}"
    media.video(path, len(times), pts_ms=times, gop=250, options=options)
    seen = read(path)
    assert seen.counters == Counters(decoded=99, stored=99, gaps=2)
    first_ns = seen.frames[0].pts_ns
    times_ms = [round((frame.pts_ns - first_ns) / 1e6) for frame in seen.frames]
    assert times_ms == times
    assert [index for index, frame in enumerate(seen.frames) if frame.gap] == [0, left_out]


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_footage_of_a_variable_rate_is_not_cut_to_pieces(container, media, tmp_path):
    steps = np.random.default_rng(0).choice([17, 33, 50, 67, 100, 400], 120)
    times = np.cumsum(steps).tolist()
    seen = read(media.video(tmp_path / f"video.{container}", len(times), pts_ms=times))
    assert seen.counters.gaps == 1
    assert seen.counters.stored == len(times)


def test_a_stream_that_begins_between_key_frames_begins_with_the_first(media, tmp_path):
    options = {"sc_threshold": "0"}
    source = media.video(tmp_path / "whole.ts", 100, gop=25, options=options)
    whole = read(source)
    seen = read(cut_out(source, tmp_path / "cut.ts", 0, 12))
    assert_undamaged(seen, whole)
    assert seen.frames[0].pts_ns in {frame.pts_ns for frame in whole.frames[::25]}
    assert seen.counters.gaps == 1


@pytest.mark.parametrize("container", ["mkv", "ts", "mp4"])
def test_a_rate_that_halves_costs_a_moment_and_not_the_rest(container, media, tmp_path):
    """As of a camera at nightfall: 300 frames at 25 a second, then 400 at half of that."""
    times = [40 * index for index in range(300)] + [12_000 + 80 * index for index in range(400)]
    path = media.video(tmp_path / f"video.{container}", len(times), pts_ms=times, gop=12)
    counted = read(path).counters
    assert counted.stored >= 700 - 2 * 12
    assert counted.gaps <= 8


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_what_a_recorder_leaves_out_now_and_then_is_no_damage(container, media, tmp_path):
    kept = np.random.default_rng(1).random(400) > 0.03
    times = (40 * np.flatnonzero(kept)).tolist()
    seen = read(media.video(tmp_path / f"video.{container}", len(times), pts_ms=times, gop=250))
    assert seen.counters.stored == len(times)
    assert seen.counters.gaps == 1 + sum(b - a > 40 for a, b in pairwise(times))


def test_one_damaged_packet_with_a_long_way_to_the_next_key_frame_fails_no_file(media, tmp_path):
    path = media.video(
        tmp_path / "video.mp4", 420, gop=600, options={"bf": "0", "sc_threshold": "0"}
    )
    seen = read(media.overwrite_packets(path, range(60, 61)))
    assert seen.counters.corrupt_packets == 1
    assert (seen.counters.stored, seen.counters.dropped) == (60, 359)


def test_a_file_that_breaks_the_rules_throughout_is_read_all_the_same(media, tmp_path, caplog):
    """H.264 whose every message (SEI) is shorter than it says: only a strict decoder minds."""
    source = media.video(tmp_path / "source.mp4", 30, gop=1, options={"bf": "0"})
    whole, path = read(source), tmp_path / "video.mp4"
    sei = bytes([0, 0, 0, 5, 6, 1, 200, 0, 0x80])  # 200 bytes are announced, one is there
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in container.demux(stream):
            if packet.size:
                muxed = av.Packet(sei + bytes(packet))
                muxed.pts, muxed.dts, muxed.time_base = packet.pts, packet.dts, packet.time_base
                muxed.is_keyframe, muxed.stream = True, copied
                out.mux(muxed)
    seen = read(path)
    assert seen.counters.stored == 30
    for ours, theirs in zip(seen.frames, whole.frames, strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
    assert "breaks the rules of its codec throughout" in caplog.text
