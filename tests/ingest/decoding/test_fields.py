"""H.264 whose frames are stored as two fields: each is one frame, however it is packed."""

import functools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.decoding.nal import coding_of_fields
from ingest.frame import Frame
from ingest.store.records import Counters
from ingest.video.pyav_reader import PyAVReader

FRAMES, GOP, SIDE = 18, 6, 32
TOP, BOTTOM = 60, 180
"""Brightness of the rows of each field, which grows from frame to frame."""


class Bits:
    """Bits of a unit of H.264, as its standard writes them."""

    def __init__(self) -> None:
        self.bits = ""

    def fixed(self, count: int, value: int) -> "Bits":
        self.bits += f"{value:0{count}b}"
        return self

    def numbers(self, *values: int) -> "Bits":
        for value in values:
            code = f"{value + 1:b}"
            self.bits += "0" * (len(code) - 1) + code
        return self

    def unit(self, kind: int) -> bytes:
        bits = self.bits + "1"
        bits += "0" * (-len(bits) % 8)
        data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
        return b"\0\0\0\1" + bytes([0x60 | kind]) + data


def header() -> bytes:
    """Parameter sets: main profile, 32x32 pixels that may be fields, shown in file order."""
    sequence = Bits().fixed(24, 77 << 16 | 30).numbers(0, 0, 2, 1).fixed(1, 0)
    sequence.numbers(1, 0).fixed(5, 0b00100).fixed(1, 0)
    picture = Bits().numbers(0, 0).fixed(2, 0).numbers(0, 0, 0).fixed(3, 0).numbers(0, 0, 0)
    return sequence.unit(7) + picture.fixed(3, 0).unit(8)


def field(number: int, *, is_bottom: bool) -> bytes:
    """One row of blocks whose samples are written as they are, none of them zero."""
    is_key = number % GOP == 0 and not is_bottom
    is_intra = number % GOP == 0
    bits = Bits().numbers(0, 7 if is_intra else 5, 0).fixed(4, number % GOP)
    bits.fixed(2, 0b10 | is_bottom)
    if is_key:
        bits.numbers(0)
    elif not is_intra:
        bits.fixed(2, 0)
    bits.fixed(2 if is_key else 1, 0).numbers(0)
    for _ in range(SIDE // 16):
        bits.numbers(*([25] if is_intra else [0, 30]))
        bits.bits += "0" * (-len(bits.bits) % 8)
        bits.bits += f"{(BOTTOM if is_bottom else TOP) + number:08b}" * 256 + f"{128:08b}" * 128
    return bits.unit(5 if is_key else 1)


@functools.cache
def fields() -> tuple[tuple[int, bool, bytes], ...]:
    """Number of the frame, whether it is the bottom field, and a packet of it."""
    delimiter = b"\0\0\0\1\x09\x10"
    found = []
    for number in range(FRAMES):
        for is_bottom in (False, True):
            ahead = header() if number % GOP == 0 and not is_bottom else b""
            data = delimiter + ahead + field(number, is_bottom=is_bottom)
            found.append((number, is_bottom, data))
    return tuple(found)


def video(path: Path, packets: Iterable[tuple[int, bool, bytes]], step: float = 0.5) -> Path:
    """A file of packets of one field each, the second one `step` frames after the first."""
    raw = path.with_suffix(".raw.h264")
    raw.write_bytes(b"".join(data for _, _, data in fields()))
    with av.open(str(raw)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, is_bottom, data in packets:
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 90_000)
            packet.pts = packet.dts = round(3600 * (number + step * is_bottom))
            packet.is_keyframe = number % GOP == 0 and not is_bottom
            out.mux(packet)
    return path


def frames_of(path: Path) -> tuple[list[Frame], Counters]:
    with PyAVReader(str(path), size=None) as reader:
        return list(reader.frames()), reader.counters


def assert_whole(frames: list[Frame], numbers: list[int]) -> None:
    """Rows of both fields, in turn, in the colours of limited range."""
    for number, frame in zip(numbers, frames, strict=True):
        for row, brightness in ((0, TOP), (1, BOTTOM)):
            expected = (brightness + number - 16) * 255 / 219
            assert np.abs(frame.image[row::2] - expected).max() < 2


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4", "avi", "h264"])
def test_two_fields_are_a_frame(suffix, tmp_path):
    path = tmp_path / f"video.{suffix}"
    if suffix == "h264":
        path.write_bytes(b"".join(data for _, _, data in fields()))
    else:
        video(path, fields())
    frames, counters = frames_of(path)
    assert counters == Counters(decoded=FRAMES, stored=FRAMES, gaps=1)
    assert_whole(frames, list(range(FRAMES)))
    if suffix != "h264":
        steps = np.diff([frame.pts_ns for frame in frames])
        assert np.abs(steps - 40_000_000).max() <= 1_000_000


@pytest.mark.parametrize("is_bottom", [False, True])
def test_damage_in_a_field_costs_its_frame_and_is_counted_in_frames(is_bottom, tmp_path):
    def damaged() -> Iterator[tuple[int, bool, bytes]]:
        for number, bottom, data in fields():
            is_hit = (number, bottom) == (GOP + 2, is_bottom)
            yield number, bottom, data[:40] if is_hit else data

    frames, counters = frames_of(video(tmp_path / "video.mkv", damaged()))
    left = [*range(GOP + 2), *range(2 * GOP, FRAMES)]
    assert_whole(frames, left)
    assert (counters.corrupt_packets, counters.dropped, counters.found) == (1, GOP - 3, FRAMES)
    assert counters.gaps == 2


def test_other_streams_have_no_fields(media, tmp_path):
    path = media.video(tmp_path / "video.mkv", 3, codec="libx264")
    with av.open(str(path)) as container:
        assert coding_of_fields(container.streams.video[0]) is None
    with av.open(str(video(tmp_path / "fields.mkv", fields()))) as container:
        assert coding_of_fields(container.streams.video[0]) is not None
