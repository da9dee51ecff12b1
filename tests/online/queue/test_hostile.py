"""Peers that want everything: they get an error or are hung up on, and others are served.

`benchmarks/queue/hostile.py` sends them by the hundred and measures.
"""

import importlib.util
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq
from msgspec.structs import replace
from streaming import clips as clips_of
from streaming import next_clip

from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig, Interval
from online.clips.holdout import RecordingSummary
from online.clips.request import ClipRequest
from online.errors import ServerError, WireError
from online.queue import messages
from online.queue.client import Client
from online.queue.sockets import limited_socket
from online.queue.sparing import BURST, SparingLog

ZMTP = Path(__file__).resolve().parents[3] / "benchmarks" / "queue" / "zmtp.py"
SPEC = importlib.util.spec_from_file_location("zmtp", ZMTP)
assert SPEC is not None
assert SPEC.loader is not None
zmtp = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(zmtp)

WANT = ClipRequest(clip=ClipConfig(clip_length=4), max_epochs=1)
HELLO = messages.Hello(
    session="0123456789", credit=1 << 50, request=ClipRequest(clip=ClipConfig(clip_length=4))
)
TCP = "tcp://127.0.0.1:*"
BOUND = 20.0
MEGABYTE = 1 << 20


@contextmanager
def deaf_trainers(address: str, count: int) -> Iterator[None]:
    """Trainers that ask for clips without end, and do not read."""
    context, peers = zmq.Context(), []
    try:
        for number in range(count):
            peer = limited_socket(context, zmq.DEALER, max_bytes=MEGABYTE, max_messages=1)
            peers.append(peer)
            peer.rcvbuf = 4096
            peer.connect(address)
            peer.send(messages.encode(replace(HELLO, session=f"deaf-{number:04}")))
        yield
    finally:
        context.destroy(linger=0)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("part_bytes", [1 << 16, 64])
def test_a_request_in_endless_parts_costs_its_sender_the_connection(record, served, part_bytes):
    record("a", 60)
    with served(TCP) as address, socket.create_connection(("127.0.0.1", port_of(address))) as peer:
        peer.settimeout(BOUND)  # it ends with an error, and not with that
        zmtp.send_endless_parts(peer, b"DEALER", part_bytes=part_bytes)
        with Client(address) as client:
            client.open(WANT)
            assert len(list(clips_of(client, BOUND))) == 12


def test_a_request_of_many_parts_is_refused_and_those_after_it_are_answered(record, served):
    record("a", 60)
    with served(TCP) as address, Client(address) as client:
        context = zmq.Context()
        peer = context.socket(zmq.DEALER)
        peer.connect(address)
        peer.send_multipart([b"x"] * 30_000)
        peer.send(messages.encode(messages.List(7)))
        kinds = []
        while not kinds or not isinstance(kinds[-1], messages.Listed):
            assert peer.poll(round(1000 * BOUND))
            kinds.append(messages.decode_reply(peer.recv_multipart()[0]))
        context.destroy(linger=0)
        assert [type(kind) for kind in kinds] == [messages.Refused, messages.Listed]
        client.open(WANT)
        assert len(list(clips_of(client, BOUND))) == 12


def test_a_server_that_sends_one_message_without_end_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        gone = threading.Event()

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.settimeout(BOUND)
                zmtp.send_endless_parts(peer, b"ROUTER")
            gone.set()

        thread = threading.Thread(target=answer)
        thread.start()
        with Client(f"tcp://127.0.0.1:{listening.getsockname()[1]}") as client:
            client.open(WANT, credit_bytes=MEGABYTE)
            with pytest.raises(WireError, match="bytes of one message, which does not end"):
                client.next_clip(BOUND)
            assert gone.wait(BOUND)
        thread.join(BOUND)


def test_a_clip_that_is_larger_than_any_is_refused_before_it_is_read(record, served):
    record("a", 60)
    longest = (64 << 20) // (8 * 8 * 3) - 2
    with served() as address, Client(address) as client:
        client.open(replace(WANT, clip=ClipConfig(clip_length=longest)), credit_bytes=1 << 50)
        assert len(next_clip(client, BOUND).frames) == 48
        client.open(replace(WANT, clip=ClipConfig(clip_length=1 << 20)), credit_bytes=1 << 50)
        with pytest.raises(ServerError, match=f"use a clip_length of {longest} or less"):
            client.next_clip(BOUND)


def test_a_clip_that_is_read_in_slices_is_the_same(store, record, served, monkeypatch):
    monkeypatch.setattr("online.queue.stream.SLICE_BYTES", 8 * 8 * 3 * 5)
    record("a", 90, live=True, complete=False)
    request = ClipRequest(clip=ClipConfig(clip_length=31), max_epochs=1)
    with served(TCP, holdout=0.0) as address, Client(address) as client:
        client.open(request)
        found = list(clips_of(client, BOUND))
    assert len(found) == 3
    for clip in found:
        whole = StoreCatalog(store).fetch("a", clip.spec.start, clip.spec.length)
        for name in ("images", "pts_ns", "gap", "captured_ns"):
            assert np.array_equal(getattr(clip.frames, name), getattr(whole, name))


def test_trainers_that_do_not_read_leave_room_for_those_that_do(
    record, served, monkeypatch, caplog
):
    """What is under way to them is more than a server may hold, and soon freed."""
    for limit in ("MAX_TOTAL_BYTES", "MAX_HELD_BYTES"):
        monkeypatch.setattr(f"online.queue.outbox.{limit}", 3 * MEGABYTE)
    record("a", 60, size=256)
    with served(TCP) as address, deaf_trainers(address, 6), Client(address) as client:
        client.open(WANT)
        assert len(list(clips_of(client, BOUND))) == 12
        assert len(client.fetch("a", 0, 5)) == 5
    assert "closed a connection on which nothing was read" in caplog.text


def test_warnings_are_limited_and_those_left_out_are_counted(monkeypatch, caplog):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    sparing = SparingLog(logging.getLogger("peers"))
    for number in range(1000):
        sparing.warn(f"warning {number}")
    now += 1.0
    sparing.warn("and another")
    assert caplog.messages[:BURST] == [f"warning {number}" for number in range(BURST)]
    assert caplog.messages[BURST:] == ["995 more warnings like these were left out", "and another"]


SUMMARY = RecordingSummary(
    name="a",
    length=10,
    complete=True,
    live=False,
    height=8,
    width=8,
    has_masks=False,
    gaps=1,
    train=(Interval(0, 8),),
    held_out=(Interval(8, 10),),
)


@pytest.mark.parametrize(
    "odd",
    [
        {"train": [{"start": 5, "stop": 2}]},
        {"train": [{"start": 0, "stop": 1 << 60}]},
        {"train": [{"start": 4, "stop": 8}, {"start": 0, "stop": 2}]},
        {"held_out": [{"start": -1, "stop": 2}]},
        {"length": -1},
        {"length": 1 << 60},
        {"released": 11},
        {"gaps": 11},
        {"height": 1 << 20},
        {"name": "\x1b[2J"},
    ],
)
def test_a_recording_that_cannot_be_is_a_malformed_message(odd):
    tree = msgspec.to_builtins(messages.Listed(1, [SUMMARY]))
    sealed = messages.seal(msgspec.msgpack.encode(tree))
    assert messages.decode_reply(sealed) == messages.Listed(1, [SUMMARY])
    tree["recordings"][0] |= odd
    with pytest.raises(WireError, match="malformed"):
        messages.decode_reply(messages.seal(msgspec.msgpack.encode(tree)))


def test_a_refusal_shows_without_what_a_terminal_would_obey(tmp_path):
    with zmq.Context() as context:
        router = limited_socket(context, zmq.ROUTER, max_bytes=MEGABYTE, max_messages=10)
        router.bind(f"ipc://{tmp_path}/s")

        def answer() -> None:
            identity, part = router.recv_multipart()
            request = messages.decode_request(part)
            assert isinstance(request, messages.List)
            refused = messages.Refused(message="no\x1b[31m\nred", request=request.request)
            router.send_multipart([identity, messages.encode(refused)])

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            Client(f"ipc://{tmp_path}/s") as client,
            pytest.raises(ServerError, match=r"^no\\x1b\[31m\\nred$"),
        ):
            client.recordings()
        thread.join(BOUND)
        router.close()
