"""Noise and mutated messages over real sockets: both ends stay up, small, and of use to others."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from odd_peers import (
    BOUND,
    FRAMES,
    HELLO,
    MEGABYTE,
    REQUESTS,
    WANT,
    Hostile,
    clip_messages,
    peer_of,
    settled,
)
from streaming import clips as clips_of

from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.errors import OnlineError, ServerError, WireError
from online.queue import messages
from online.queue.client import Client
from online.queue.server import serve
from online.queue.server_process import ServerProcess

ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1,
        255,
        1 << 20,
        1 << 53,
        1 << 63,
        0.5,
        float("nan"),
        "",
        "a",
        "*",
        "\x00",
    ),
    *("../../a", "[" * 200, "x" * 300, b"", b"\xff" * 9, [], [[]], {}, {"a": [1 << 40, True]}),
    *([[[[]]]] * 3, {"a": {"a": {}}}, [2**31, 2**14, 2**14, 3]),
]
ERRORS = ("WireError", "MessageDamaged", "ServerError")


def tables_in(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The tables within a table, however deep, that are not empty."""
    inner = [value for value in tree.values() if isinstance(value, dict) and value]
    return [found for table in inner for found in [table, *tables_in(table)]]


def mutated(rng: random.Random, message: Any) -> list[bytes]:
    """The parts of something like `message`."""
    part = messages.encode(message)
    match rng.randrange(7):
        case 0:
            return [rng.randbytes(rng.randrange(200))]
        case 1:
            return [messages.seal(rng.randbytes(rng.randrange(60)))]
        case 2:
            return [part[: rng.randrange(len(part))] + rng.randbytes(rng.randrange(3))]
        case 3:
            flipped = bytearray(part)
            for _ in range(rng.randint(1, 4)):
                flipped[rng.randrange(3, len(flipped))] ^= 1 << rng.randrange(8)
            return [bytes(flipped) if rng.random() < 0.2 else messages.seal(bytes(flipped[7:]))]
        case 4:
            return [part] + [rng.randbytes(rng.randrange(50)) for _ in range(rng.randint(0, 3))]
        case _:
            tree = {"type": message.__struct_config__.tag, **msgspec.to_builtins(message)}
            for _ in range(rng.randint(0, 2)):
                table = rng.choice([tree, *tables_in(tree)])
                table[rng.choice(list(table))] = deepcopy(rng.choice(ODD))  # it may be written to
            return [messages.seal(msgspec.msgpack.encode(tree))]


def resident_bytes(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def until(has_come: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND
    while not has_come():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_is_sent_4000_odd_messages_serves_the_others(store, record):
    record("a", 200)
    rng = random.Random(0)
    with ServerProcess(store.location) as server, ExitStack() as stack:
        assert server.pid is not None
        peers = [stack.enter_context(peer_of(server.address)) for _ in range(8)]
        sizes = []
        for turn in range(8):
            for _ in range(500):
                rng.choice(peers).send_multipart(mutated(rng, rng.choice(REQUESTS)))
            for peer in peers:
                settled(peer, 1 << 40 | turn)
            sizes.append(resident_bytes(server.pid))
            with Client(server.address) as client:
                client.open(WANT)
                assert len(list(clips_of(client, BOUND))) == 39
                assert len(client.fetch("a", 7, 30)) == 30
        server.check()
    assert sizes[-1] - sizes[1] < 30 * MEGABYTE, sizes


def outcome(ask) -> str:
    try:
        return type(ask()).__name__
    except OnlineError as error:
        return type(error).__name__


def test_a_client_that_is_sent_3000_odd_messages_gives_clear_errors_and_stays_of_use(
    record, served, tmp_path
):
    record("a", 200)
    rng = random.Random(1)

    def answers(message: messages.ToServer) -> list[list[bytes]]:
        if isinstance(message, messages.Hello):
            sent = clip_messages(message.session)
            parts = [[messages.encode(kind), *buffers] for kind, buffers in sent[:5]]
            odd = rng.randrange(5)
            kind, buffers = sent[odd]
            parts[odd : odd + rng.randrange(2)] = [[*mutated(rng, kind), *buffers]]
            del parts[-rng.randrange(1, 3) :]
            some = [mutated(rng, kind) for kind, _ in rng.choices(sent, k=rng.randrange(3))]
            end = messages.Refused(message="that was all", session=message.session)
            return [*parts, *some, [messages.encode(end)]]
        if isinstance(message, messages.List | messages.Fetch):
            header, _ = messages.pack_frames(FRAMES, checksum=False)
            reply = messages.Fetched(message.request, header)
            end = messages.Refused(message="that was all", request=message.request)
            return [[*mutated(rng, reply), bytes(8 * 8 * 8 * 3)], [messages.encode(end)]]
        return []

    address = f"ipc://{tmp_path}/hostile"
    seen: Counter[str] = Counter()
    with Hostile(address, answers) as hostile, Client(address) as client:
        for turn in range(400):
            if turn == 100:
                before = resident_bytes("self"), open_files(), threading.active_count()
            client.open(WANT)
            for _ in range(5):
                seen[outcome(lambda: client.next_clip(BOUND))] += 1
            seen[outcome(lambda: client.fetch("a", 0, 8))] += 1
        deadline = time.monotonic() + BOUND  # ZeroMQ closes released sockets in the background
        while open_files() > before[1] + 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        after = resident_bytes("self"), open_files(), threading.active_count()
    assert hostile.sent > 3000
    assert set(seen) <= {"Delivery", "NoneType", "Frames", *ERRORS}, seen
    assert min(seen["Delivery"], seen["Frames"], seen["WireError"], seen["ServerError"]) > 20, seen
    assert after[0] - before[0] < 30 * MEGABYTE
    assert after[1] <= before[1] + 8
    assert after[2] <= before[2] + 1
    with served() as good, Client(good) as client:
        client.open(WANT)
        assert len(list(clips_of(client, BOUND))) == 39


def test_a_server_that_sends_more_than_was_granted_is_an_error(tmp_path):
    def answers(message: messages.ToServer) -> list[list[bytes]]:
        if not isinstance(message, messages.Hello):
            return []
        sent = clip_messages(message.session, count=100)[:101]
        return [[messages.encode(kind), *buffers] for kind, buffers in sent]

    with Hostile(f"ipc://{tmp_path}/hostile", answers), Client(f"ipc://{tmp_path}/hostile") as c:
        c.open(ClipRequest(clip=WANT.clip), credit_bytes=20_000)
        (receiving,) = [t for t in threading.enumerate() if t.name.startswith("receive")]
        receiving.join(BOUND)
        with pytest.raises(WireError, match=r"sent 2\d+ bytes of clips, granted were 2"):
            list(clips_of(c, BOUND))
        assert c.counters.clips < 20


@pytest.fixture
def counting(store, tmp_path):
    """A served store, and what its server says it has done; for tests of limits."""
    stop, bound, seen = threading.Event(), threading.Event(), []

    def run() -> None:
        where = f"ipc://{tmp_path}/sockets/s"
        seen.append(serve(store, where, ready=lambda _: bound.set(), stop=stop, report=seen.append))

    @contextmanager
    def serving():
        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert bound.wait(BOUND)
            yield f"ipc://{tmp_path}/sockets/s", seen
        finally:
            stop.set()
            thread.join(BOUND)
            assert not thread.is_alive()

    return serving


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("fetches", "MAX_TRAINER_BYTES"),
        ("clips", "MAX_TRAINER_BYTES"),
        ("clips", "MAX_TOTAL_BYTES"),
    ],
)
def test_what_a_trainer_does_not_read_is_not_sent_for_ever(
    record, counting, monkeypatch, what, limit
):
    """500 fetches of 1 MB, or clips without end: only 2 MB, a message and what the kernel holds."""
    monkeypatch.setattr(f"online.queue.outbox.{limit}", 2 * MEGABYTE)
    monkeypatch.setattr("online.queue.server.REPORT_SECONDS", 0.05)
    record("a", 40, size=256)
    with counting() as (address, seen), peer_of(address, keeps=1) as stuck:
        hello = msgspec.structs.replace(
            HELLO, credit=1 << 40, request=ClipRequest(clip=ClipConfig(clip_length=1))
        )
        fetches = [messages.Fetch(request=i, recording="a", start=0, length=5) for i in range(500)]
        for message in fetches if what == "fetches" else [hello]:
            stuck.send(messages.encode(message))
        with Client(address) as client:
            client.open(WANT)
            assert len(list(clips_of(client, BOUND))) == 7
            assert len(client.fetch("a", 3, 30)) == 30
        if what == "fetches":  # those that were not answered are gone, and it may ask again
            stuck.send(b"noise")  # rejected once all are read: one read later would be answered
            until(lambda: seen and seen[-1].rejected)
            settled(stuck, 1 << 40)
    sent = seen[-1].fetches * 5 * 256 * 256 * 3 + seen[-1].clip_bytes
    assert 2 * MEGABYTE < sent < 60 * MEGABYTE, sent


def test_sessions_are_limited_and_one_that_ends_makes_room(record, counting, monkeypatch):
    monkeypatch.setattr("online.queue.server.MAX_SESSIONS", 3)
    record("a", 100)
    with counting() as (address, _), Client(address) as fourth:
        clients = [Client(address) for _ in range(3)]
        for client in clients:
            client.open(ClipRequest(clip=WANT.clip), credit_bytes=20_000)
            assert client.next_clip(BOUND) is not None
        fourth.open(WANT)
        with pytest.raises(
            ServerError, match="is already served to 3 trainers, whose plans take 96 bytes"
        ):
            fourth.next_clip(BOUND)
        clients.pop().close()

        def has_room() -> bool:  # the goodbye comes by another connection
            fourth.open(WANT)
            try:
                return fourth.next_clip(BOUND) is not None
            except ServerError:
                return False

        until(has_room)
        assert len(list(clips_of(fourth, BOUND))) == 18
        for client in clients:
            client.close()
