"""Junk in MPEG-TS, in which no packet begins."""

from pathlib import Path

import av
import numpy as np
import pytest

from ingest.decoding.transport import TransportLosses
from ingest.errors import SourceStopped
from ingest.video.pyav_reader import PyAVReader

JUNK_BYTES = (5 << 19) + 77
NO_STREAM = 0x1F00
"""None of the packets is of it, so all are read."""


@pytest.fixture(params=["zeros", "noise"])
def spoilt(request, media, tmp_path) -> Path:
    """A video of 100 frames with over two blocks of junk in the middle."""
    options = {"bf": "0", "sc_threshold": "0"}
    path = media.video(tmp_path / "video.ts", 100, gop=10, options=options)
    junk = bytes(JUNK_BYTES)
    if request.param == "noise":
        junk = np.random.default_rng(0).bytes(JUNK_BYTES).replace(b"\x47", b"\x48")
    data = path.read_bytes()
    middle = len(data) // 188 // 2 * 188
    path.write_bytes(data[:middle] + junk + data[middle:])
    return path


def test_junk_between_packets_costs_the_frames_around_it(spoilt):
    with PyAVReader(str(spoilt), size=32) as reader:
        frames = list(reader.frames())
    assert 70 < len(frames) < 100
    assert sum(frame.gap for frame in frames) >= 2
    assert frames[-1].pts_ns - frames[0].pts_ns == 99 * 40_000_000


def test_a_source_is_left_within_junk(spoilt):
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with av.open(str(spoilt)) as container:
        first = next(packet for packet in container.demux(video=0) if packet.size)
    losses = TransportLosses(spoilt, pid=NO_STREAM, should_stop=should_stop)
    with losses, pytest.raises(SourceStopped):
        losses.is_between(first, None)
    assert asked == 3
