"""Odd messages both ways: a server stays of use, and a trainer ends with one clear line."""

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from fuzzing import assert_one_line, changed, few_unless_asked, garbled, limited_memory
from hypothesis import example, given
from hypothesis import strategies as st
from made_stores import make_store
from odd_peers import BOUND, FRAMES, REQUESTS, WANT, Hostile, clip_messages, peer_of, settled
from streaming import clips as clips_of

from ingest.errors import ReleasedError
from online.errors import ServerError, ServerSilent, WireError
from online.queue import messages
from online.queue.client import Client
from online.queue.server_process import ServerProcess

pytestmark = [pytest.mark.fuzz, pytest.mark.usefixtures("unchecked_shapes")]

REPLIES = [
    *(message for message, _ in clip_messages("0123456789")),
    messages.Listed(1, []),
    messages.Fetched(0, messages.pack_frames(FRAMES, checksum=True)[0]),
]


def tree_of(message: Any) -> dict[str, Any]:
    return {"type": message.__struct_config__.tag, **msgspec.to_builtins(message)}


def sealed(tree: Any) -> bytes:
    return messages.seal(msgspec.msgpack.encode(tree))


def packable(tree: Any) -> bool:
    try:
        msgspec.msgpack.encode(tree)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True


def like(message: Any) -> st.SearchStrategy[bytes]:
    """The first part of something like `message`."""
    trees = changed(tree_of(message)).filter(packable)
    return st.one_of(
        trees.map(sealed),
        trees.map(sealed),
        garbled(msgspec.msgpack.encode(tree_of(message))).map(messages.seal),
        garbled(messages.encode(message)),
    )


ODD_REQUESTS = st.one_of([like(message) for message in REQUESTS])
ODD_REPLIES = st.one_of([like(message) for message in REPLIES])


@few_unless_asked(25)
@given(st.one_of(ODD_REQUESTS, ODD_REPLIES))
@example(sealed({"type": "a\nb"}))
@example(sealed({"type": "list", "request": 1, "\x1b[2J": 1}))
def test_any_bytes_are_a_message_or_one_line(part: bytes) -> None:
    for decode in (messages.decode_request, messages.decode_reply):
        try:
            with limited_memory():
                message = decode(part)
        except WireError as error:
            assert_one_line(error)
        else:
            assert decode(messages.encode(message)) == message


@few_unless_asked(25)
@given(
    changed(msgspec.to_builtins(messages.pack_frames(FRAMES, checksum=True)[0])),
    st.lists(st.integers(0, 1 << 12).map(bytes), max_size=3) | st.just(None),
)
def test_any_header_over_any_buffers_is_frames_or_one_line(
    tree: Any, buffers: list[bytes] | None
) -> None:
    given_buffers = [FRAMES.images.tobytes()] if buffers is None else buffers
    try:
        header = msgspec.convert(tree, messages.FramesHeader)
    except msgspec.ValidationError:
        return
    try:
        with limited_memory():
            frames = messages.unpack_frames(header, [memoryview(b) for b in given_buffers])
    except WireError as error:
        assert_one_line(error)
    else:
        np.testing.assert_array_equal(frames.images.reshape(-1), FRAMES.images.reshape(-1))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    store = make_store(tmp_path_factory.mktemp("served") / "store", length=60)
    with ServerProcess(store.location) as process:
        yield process


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count(1 << 40)


@few_unless_asked(6)
@given(st.lists(st.tuples(ODD_REQUESTS, st.lists(st.binary(max_size=9), max_size=2)), max_size=12))
def test_a_server_answers_others_whatever_one_sends(
    server: ServerProcess, numbers: Iterator[int], sent: list[tuple[bytes, list[bytes]]]
) -> None:
    with peer_of(server.address) as peer:
        for part, more in sent:
            peer.send_multipart([part, *more])
        settled(peer, next(numbers))
    server.check()
    with Client(server.address) as client:
        client.open(WANT)
        assert len(list(clips_of(client, BOUND))) == 11


def outcome(ask) -> str:
    try:
        return type(ask()).__name__
    except ServerSilent:
        raise  # each answer ends with a word that there is no more
    except (ServerError, WireError, ReleasedError) as error:
        assert_one_line(error)
        return type(error).__name__


PART = st.binary(max_size=9) | st.just(FRAMES.images.tobytes())


@few_unless_asked(6)
@example(session=[], fetched=b"SC" + bytes(9), listed=b"SC" + bytes(9), buffers=[])
@given(
    session=st.lists(
        st.tuples(st.integers(0, len(REPLIES) - 1), st.none() | ODD_REPLIES), max_size=8
    ),
    fetched=like(REPLIES[-1]),
    listed=like(REPLIES[-2]),
    buffers=st.lists(PART, max_size=2),
)
def test_a_trainer_ends_in_one_line_whatever_a_server_sends(
    tmp_path_factory: pytest.TempPathFactory,
    session: list[tuple[int, bytes | None]],
    fetched: bytes,
    listed: bytes,
    buffers: list[bytes],
) -> None:
    hellos = 0

    def answers(message: messages.ToServer) -> list[list[bytes]]:
        nonlocal hellos
        if isinstance(message, messages.Hello):
            hellos += 1
            whole = clip_messages(message.session)
            parts = [[messages.encode(kind), *rest] for kind, rest in whole]
            some = [[odd, *buffers] if odd else parts[i % len(parts)] for i, odd in session]
            last = messages.Refused(message="that was all", session=message.session)
            return [*(some if hellos == 1 else []), [messages.encode(last)]]
        if isinstance(message, messages.List | messages.Fetch):
            odd = listed if isinstance(message, messages.List) else fetched
            last = messages.Refused(message="that was all", request=message.request)
            return [[odd, *buffers], [messages.encode(last)]]
        return []

    address = f"ipc://{tmp_path_factory.mktemp('s')}/h"
    with Hostile(address, answers), Client(address, timeout_seconds=BOUND) as client:
        client.open(WANT)
        for _ in range(5):
            outcome(lambda: client.next_clip(BOUND))
        outcome(lambda: client.fetch("a", 0, 8))
        outcome(client.recordings)
