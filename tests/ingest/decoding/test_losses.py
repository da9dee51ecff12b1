"""What shows of lost datagrams in a stream whose bytes are not seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from ingest.decoding.gate import Gate
from ingest.decoding.losses import LiveLosses, with_following
from ingest.decoding.timeline import Pace

DATAGRAM_BYTES = 7 * 188


@contextmanager
def opened(path: Path) -> Iterator[VideoStream]:
    with av.open(str(path)) as container:
        yield container.streams.video[0]


def sizes(path: Path) -> dict[int, int]:
    with opened(path) as stream:
        return {p.pts: p.size for p in stream.container.demux(stream) if p.pts is not None}


def verdicts(path: Path, losses: LiveLosses) -> dict[int, str]:
    with opened(path) as stream:
        gate = Gate(stream, losses)
        packets = (packet for packet in stream.container.demux(stream) if packet.size)
        judged = ((p, gate.judge(p, after)) for p, after in with_following(packets, losses))
        return {packet.pts: verdict for packet, verdict in judged if packet.pts is not None}


@pytest.fixture(scope="module")
def whole(media, tmp_path_factory) -> Path:
    """Four key frames of some ten datagrams each."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(40)]
    path = tmp_path_factory.mktemp("losses") / "whole.ts"
    return media.video(path, images, gop=10, options={"bf": "0", "sc_threshold": "0"})


def test_a_frame_that_lost_a_datagram_is_never_sound(whole, tmp_path):
    """FFmpeg marks the frame before it, in whose place a key frame would open the gate again."""
    data, of_whole = whole.read_bytes(), sizes(whole)
    damaged = 0
    for lost in range(len(data) // 4, len(data) - DATAGRAM_BYTES, 5 * DATAGRAM_BYTES):
        cut = tmp_path / "cut.ts"
        at = lost - lost % 188
        cut.write_bytes(data[:at] + data[at + DATAGRAM_BYTES :])
        judged = verdicts(cut, LiveLosses(Pace(learns=True)))
        other = {pts for pts, size in sizes(cut).items() if size != of_whole.get(pts)}
        damaged += len(other)
        assert "sound" not in {judged[pts] for pts in other}
        assert next(iter(judged.values())) == "sound"
    assert damaged > 10


def test_the_first_key_frame_opens_nothing_where_datagrams_are_lost(whole):
    trusting, doubtful = (
        list(verdicts(whole, LiveLosses(Pace(), can_hide_in_first=hides)).values())
        for hides in (False, True)
    )
    assert trusting == 40 * ["sound"]
    assert doubtful == 10 * ["untrusted"] + 30 * ["sound"]
