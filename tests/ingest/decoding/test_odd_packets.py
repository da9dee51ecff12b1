"""Packets that are not one picture each, and pictures that are not marked: all are kept."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from ingest.frame import Frame
from ingest.store.records import Counters
from ingest.video.pyav_reader import PyAVReader

FRAMES = 40


JUNK = bytes([0, 0, 0, 8, 5, 0xFF, 0xFF, 0xAB, 0xDC, 0x45, 0xE9, 0xBD])
"""A slice that no decoder takes, with its length before it."""


def frames_of(path: Path, track: int | None = None) -> tuple[list[Frame], Counters]:
    with PyAVReader(str(path), size=32, track=track) as reader:
        return list(reader.frames()), reader.counters


def copied(source: Path, target: Path, change) -> Path:
    """Copy a video; `change` turns each packet, with its number, into the bytes of several."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        template = out.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            parts = change(number, bytes(packet))
            for part, data in enumerate(parts):
                muxed = av.Packet(data)
                muxed.pts, muxed.dts, muxed.time_base = packet.pts, packet.dts, packet.time_base
                if part < len(parts) - 1:  # a tick before the picture it belongs to
                    muxed.pts -= 1
                    muxed.dts -= 1
                muxed.is_keyframe, muxed.stream = packet.is_keyframe, template
                out.mux(muxed)
    return target


def assert_same(path: Path, original: Path) -> None:
    frames, counters = frames_of(path)
    assert (counters.stored, counters.gaps, counters.left_out) == (FRAMES, 1, 0)
    for frame, expected in zip(frames, frames_of(original)[0], strict=True):
        np.testing.assert_array_equal(frame.image, expected.image)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_what_belongs_to_a_picture_may_be_a_packet_of_its_own(codec, container, media, tmp_path):
    options = {"bf": "0"}
    if codec == "libx265":
        options = {"x265-params": "log-level=none:bframes=0:pools=none:frame-threads=1"}
    source = media.video(tmp_path / "source.mp4", FRAMES, codec=codec, options=options)
    message = bytes([6, 1, 1, 0, 0x80]) if codec == "libx264" else bytes([78, 1, 1, 1, 0, 0x80])
    unit = len(message).to_bytes(4) + message
    path = copied(
        source,
        tmp_path / f"video.{container}",
        lambda number, data: [data] if number % 3 else [unit, data],
    )
    assert_same(path, source)


def test_zeros_in_place_of_a_picture_are_damage_and_not_a_part_of_the_next(media, tmp_path):
    options = {"bf": "0", "sc_threshold": "0"}
    path = media.video(tmp_path / "video.mp4", FRAMES, gop=10, options=options)
    _, counters = frames_of(media.overwrite_packets(path, range(15, 16)))
    assert counters.corrupt_packets == 1
    assert counters.dropped == 4


def test_a_unit_that_no_decoder_takes_is_junk_if_the_picture_is_whole(media, tmp_path, caplog):
    """As one muxer wrote the message of an encoder: as a slice, in the first packet only."""
    options = {"bf": "0", "sc_threshold": "0"}
    source = media.video(tmp_path / "source.mp4", FRAMES, gop=20, options=options)
    path = copied(
        source,
        tmp_path / "video.mp4",
        lambda number, data: [JUNK + data if not number else data],
    )
    assert_same(path, source)
    assert "it is read leniently" in caplog.text


def test_junk_is_looked_for_in_the_track_that_is_read(media, tmp_path, caplog):
    options = {"bf": "0", "sc_threshold": "0"}
    source = media.video(tmp_path / "source.mp4", FRAMES, gop=20, options=options)
    path = tmp_path / "video.mkv"
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        main = out.add_stream("mjpeg", rate=25)  # damage in it never looks like junk
        main.width, main.height, main.pix_fmt = 640, 480, "yuvj420p"
        stream = out.add_stream_from_template(container.streams.video[0])
        stream.disposition = Disposition(0)
        for packet in container.demux(video=0):
            if packet.size:
                muxed = av.Packet(JUNK + bytes(packet) if not packet.dts else bytes(packet))
                muxed.pts, muxed.dts, muxed.time_base = packet.pts, packet.dts, packet.time_base
                muxed.is_keyframe, muxed.stream = packet.is_keyframe, stream
                out.mux(muxed)
        picture = np.zeros((480, 640, 3), np.uint8)
        out.mux(main.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(main.encode())
    frames, counters = frames_of(path, track=2)
    assert (counters.stored, counters.gaps, counters.left_out) == (FRAMES, 1, 0)
    for frame, expected in zip(frames, frames_of(source)[0], strict=True):
        np.testing.assert_array_equal(frame.image, expected.image)
    assert "it is read leniently" in caplog.text


def test_junk_after_every_tenth_picture_is_read_leniently(media, tmp_path, caplog):
    source = media.video(tmp_path / "source.mkv", FRAMES, codec="mpeg4", gop=20)
    random = np.random.default_rng(0)
    path = copied(
        source,
        tmp_path / "video.mkv",
        lambda number, data: [data + random.bytes(3000) if number % 4 == 3 else data],
    )
    assert_same(path, source)
    assert "it is read leniently" in caplog.text


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_damage_that_comes_again_and_again_is_no_junk(codec, media, tmp_path, caplog):
    options = {"b": "600k"}
    source = media.video(tmp_path / "source.mkv", FRAMES, codec=codec, gop=20, options=options)
    random = np.random.default_rng(0)

    def overwritten(number: int, data: bytes) -> list[bytes]:
        at = len(data) * 2 // 3
        return [data[:at] + random.bytes(20) + data[at + 20 :] if number % 4 == 3 else data]

    frames, counters = frames_of(copied(source, tmp_path / "video.mkv", overwritten))
    assert "leniently" not in caplog.text
    assert counters.corrupt_packets
    whole = {frame.image.tobytes() for frame in frames_of(source)[0]}
    assert frames
    assert {frame.image.tobytes() for frame in frames} <= whole


def test_a_stream_without_marks_of_key_frames_is_read_whole(media, tmp_path):
    path = tmp_path / "video.roq"
    with av.open(str(path), "w", format="roq") as container:
        stream = container.add_stream("roqvideo", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj444p"
        for image in media.square(FRAMES, height=64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert not any(packet.is_keyframe for packet in container.demux(video=0))
    frames, counters = frames_of(path)
    assert (counters.stored, counters.gaps, counters.left_out) == (FRAMES, 1, 0)
    for frame, before in zip(frames[1:], frames, strict=False):
        assert (frame.image != before.image).any()


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_that_lead_the_first_key_frame_cost_nothing_else(codec, media, tmp_path):
    params = "open-gop=1:bframes=3:keyint=12:b-adapt=0:scenecut=0"
    options = {"x264-params": params}
    if codec == "libx265":
        options = {"x265-params": f"log-level=none:pools=none:frame-threads=1:{params}"}
    source = media.video(tmp_path / "source.mkv", FRAMES, codec=codec, gop=12, options=options)
    whole = {frame.image.tobytes() for frame in frames_of(source)[0]}
    path = tmp_path / "cut.mkv"
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        template = out.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        for packet in packets[keys[1] :]:
            packet.stream = template
            out.mux(packet)
    frames, counters = frames_of(path)
    assert counters.stored >= FRAMES - keys[1] - 3
    assert counters.gaps == 1
    assert {frame.image.tobytes() for frame in frames} <= whole
