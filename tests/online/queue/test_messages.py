import pickle

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ingest.disk.checksum import crc32c
from ingest.frame import Frames
from online.clips.clip import ClipConfig, Interval
from online.clips.cursor import Cursor, Extent
from online.clips.holdout import RecordingSummary
from online.clips.request import ClipRequest
from online.errors import MessageDamaged, WireError
from online.queue import messages

HELLO = messages.Hello(
    session="0123456789", credit=1000, request=ClipRequest(clip=ClipConfig(clip_length=4))
)


@st.composite
def frames(draw) -> Frames:
    n, h, w = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    times = hnp.arrays(np.int64, n)
    return Frames(
        images=draw(hnp.arrays(np.uint8, (n, h, w, 3))),
        pts_ns=draw(times),
        gap=draw(hnp.arrays(np.bool_, n)),
        captured_ns=draw(st.none() | times),
        masks=draw(st.none() | hnp.arrays(np.uint8, (n, h, w))),
    )


def received(buffers: list[np.ndarray]) -> list[memoryview]:
    """What arrives: the same bytes in memory of its own."""
    return [memoryview(bytearray(buffer.tobytes())) for buffer in buffers]


@given(frames(), st.booleans())
def test_frames_arrive_as_they_were_sent(sent, checksum):
    header, buffers = messages.pack_frames(sent, checksum=checksum)
    part = messages.encode(messages.Fetched(7, header))
    reply = messages.decode_reply(memoryview(part))
    assert isinstance(reply, messages.Fetched)
    got = messages.unpack_frames(reply.frames, received(buffers))
    for name in ("images", "pts_ns", "gap", "captured_ns", "masks"):
        mine, theirs = getattr(sent, name), getattr(got, name)
        assert (mine is None) == (theirs is None)
        assert mine is None or (mine.dtype == theirs.dtype and np.array_equal(mine, theirs))


@given(frames(), st.data())
def test_a_changed_bit_is_noticed_by_the_checksum(sent, data):
    header, buffers = messages.pack_frames(sent, checksum=True)
    got = received(buffers)
    buffer = got[data.draw(st.integers(0, len(got) - 1))]
    position = data.draw(st.integers(0, len(buffer) - 1))
    buffer[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError, match="checksums"):
        messages.unpack_frames(header, got)


def test_pixels_are_not_copied_at_either_end():
    sent = Frames(np.zeros((2, 64, 64, 3), np.uint8), np.arange(2), np.zeros(2, np.bool_))
    header, buffers = messages.pack_frames(sent, checksum=True)
    assert np.shares_memory(buffers[0], sent.images)
    (got,) = received(buffers)
    frames = messages.unpack_frames(header, [got])
    assert np.shares_memory(frames.images, np.frombuffer(got, np.uint8))


def test_frames_of_a_small_message_do_not_keep_the_buffer_that_it_came_in():
    sent = Frames(np.zeros((2, 3, 4, 3), np.uint8), np.arange(2), np.zeros(2, np.bool_))
    header, buffers = messages.pack_frames(sent, checksum=False)
    (got,) = received(buffers)
    frames = messages.unpack_frames(header, [got])
    assert not np.shares_memory(frames.images, np.frombuffer(got, np.uint8))


@pytest.mark.parametrize("cut", [-1, 0, 1])
def test_a_buffer_of_another_size_is_refused(cut):
    sent = Frames(np.zeros((2, 3, 4, 3), np.uint8), np.arange(2), np.zeros(2, np.bool_))
    header, buffers = messages.pack_frames(sent, checksum=False)
    data = memoryview(bytes(buffers[0].nbytes + cut))
    if cut == 0:
        assert len(messages.unpack_frames(header, [data])) == 2
    else:
        with pytest.raises(WireError, match="need buffers of"):
            messages.unpack_frames(header, [data])
    with pytest.raises(WireError, match="need buffers of"):
        messages.unpack_frames(header, [data, data])


@pytest.mark.parametrize(
    "changed",
    [{"pts_ns": b"12345678"}, {"gap": b"\2\0"}, {"gap": b"\0"}, {"captured_ns": b""}],
)
def test_times_and_marks_that_do_not_fit_the_frames_are_refused(changed):
    sent = Frames(np.zeros((2, 3, 4, 3), np.uint8), np.arange(2), np.zeros(2, np.bool_))
    header, buffers = messages.pack_frames(sent, checksum=False)
    with pytest.raises(WireError):
        messages.unpack_frames(msgspec.structs.replace(header, **changed), received(buffers))


@pytest.mark.parametrize(
    "field",
    [
        {"dtype": "float32"},
        {"shape": [2, 3, 4, 4]},
        {"shape": [0, 3, 4, 3]},
        {"shape": [2, 3, 1 << 30, 3]},
        {"checksums": [-1]},
    ],
)
def test_headers_of_other_types_and_sizes_are_refused(field):
    header = {"shape": [2, 3, 4, 3], "pts_ns": b"", "gap": b""}
    message = {"type": "fetched", "request": 1, "frames": header | field}
    with pytest.raises(WireError, match="malformed"):
        messages.decode_reply(messages.seal(msgspec.msgpack.encode(message)))


@pytest.mark.parametrize(
    "field",
    [
        {"credit": -1},
        {"session": ""},
        {"request": {"clip": {"clip_length": 0}}},
        {"request": {"clip": {"frame_stride": 1 << 40}}},
        {"request": {"shards": 0}},
        {"request": {"shard": 2, "shards": 2}},
        {"request": {"order": "random"}},
        {"request": {"recordings": "x" * 300}},
    ],
)
def test_requests_outside_the_limits_are_refused(field):
    message = {"type": "hello", **msgspec.to_builtins(HELLO), **field}
    with pytest.raises(WireError, match="malformed"):
        messages.decode_request(messages.seal(msgspec.msgpack.encode(message)))


@pytest.mark.parametrize("version", [4, 9], ids=["the one before", "a later one"])
def test_another_protocol_version_is_named(version):
    magic, body = b"SC" + bytes([version]), messages.encode(HELLO)[7:]
    part = magic + crc32c(magic + body).to_bytes(4, "little") + body
    with pytest.raises(WireError, match=f"speaks protocol {version}, this one 5; run the same"):
        messages.decode_request(part)


def test_protocol_2_which_sealed_less_of_a_header_is_named():
    body = messages.encode(HELLO)[7:]
    part = b"SC\x02" + crc32c(body).to_bytes(4, "little") + body
    with pytest.raises(WireError, match="speaks protocol 2, this one 5"):
        messages.decode_request(part)


@pytest.mark.parametrize("part", [b"", b"GET / HTTP/1.1", pickle.dumps(HELLO)])
def test_messages_of_other_programs_are_refused(part):
    with pytest.raises(WireError, match="not a message of this program"):
        messages.decode_request(part)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_decoder_fail_in_another_way(noise):
    for decode in (messages.decode_request, messages.decode_reply):
        with pytest.raises(WireError):
            decode(messages.encode(HELLO)[:3] + noise)


def test_lists_of_recordings_and_cursors_arrive_as_they_were_sent():
    summary = RecordingSummary(
        name="a", length=10, complete=True, live=False, height=4, width=4, has_masks=True, gaps=1,
        train=(Interval(0, 8),), held_out=(Interval(8, 10),),
    )  # fmt: skip
    listed = messages.Listed(3, [summary])
    assert messages.decode_reply(messages.encode(listed)) == listed
    cursor = Cursor(epoch=2, index=5, extents={"a": Extent(10, True)}, fingerprint=77)
    hello = msgspec.structs.replace(HELLO, cursor=cursor)
    assert messages.decode_request(messages.encode(hello)) == hello
    assert msgspec.json.decode(msgspec.json.encode(cursor), type=Cursor) == cursor


@pytest.mark.parametrize("message", [HELLO, messages.Credit(HELLO.session, 3), messages.List(1)])
def test_a_header_of_which_any_bit_was_changed_is_damaged(message):
    part = messages.encode(message)
    for place in range(8 * len(part)):
        changed = bytearray(part)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(MessageDamaged):
            messages.decode_request(bytes(changed))


@pytest.mark.parametrize("decode", [messages.decode_request, messages.decode_reply])
@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_a_message_nested_too_deeply_is_refused(decode, depth):
    with pytest.raises(WireError, match=r"does not hold what it must|malformed"):
        decode(messages.seal(b"\x81\xa1a" * depth))
