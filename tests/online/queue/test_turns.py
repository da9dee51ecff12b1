"""A server driven step by step: whose turn it is while some trainers ask for more than theirs."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import zmq
from msgspec.structs import replace

from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.queue import messages
from online.queue.server import Server, server_socket
from online.queue.stream import ServeConfig

HELLO = messages.Hello(
    session="0123456789", credit=1 << 30, request=ClipRequest(clip=ClipConfig(clip_length=4))
)
MOST_STEPS = 2000


class Peer:
    """A trainer that sends exactly the given messages."""

    def __init__(self, context: zmq.Context, address: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(address)

    def say(self, message: messages.ToServer) -> None:
        self.socket.send(messages.encode(message), zmq.NOBLOCK)

    def heard(self, kind: type) -> list:
        """All of a kind that has come and was not heard yet."""
        found = []
        with suppress(zmq.Again):
            while True:
                found.append(messages.decode_reply(self.socket.recv_multipart(zmq.NOBLOCK)[0]))
        return [message for message in found if isinstance(message, kind)]


@pytest.fixture
def driven(store, tmp_path) -> Callable[[], contextlib.AbstractContextManager]:
    """A server that works only when its `step` is called, and what makes peers of it."""

    @contextmanager
    def driving() -> Iterator[tuple[Server, Callable[[], Peer]]]:
        address = f"ipc://{tmp_path}/s"
        with contextlib.closing(StoreCatalog(store)) as catalog, zmq.Context() as context:
            socket = server_socket(context)
            assert 0 < socket.rcvbuf <= 1 << 15  # throttles who never stops sending
            socket.bind(address)
            server = Server(catalog, socket, ServeConfig())
            peers = zmq.Context()
            try:
                yield server, lambda: Peer(peers, address)
            finally:
                server.close()
                socket.close()
                peers.destroy(linger=0)

    return driving


@pytest.mark.parametrize("reconnects", [False, True])
def test_trainers_that_come_again_and_again_are_not_always_the_first(
    record, driven, monkeypatch, reconnects
):
    monkeypatch.setattr("online.queue.server.TURN_SECONDS", 1e-4)  # for one of them a step
    record("a", 400)
    with driven() as (server, peer):
        greedy, honest, clips = [peer() for _ in range(4)], peer(), 0
        honest.say(HELLO)
        for step in range(MOST_STEPS):
            if reconnects:
                greedy[step % 4].socket.close()
                greedy[step % 4] = peer()
            for number, other in enumerate(greedy):
                if not reconnects:
                    other.say(messages.Bye(f"{step:04}{number:04}"))
                if not reconnects or number == step % 4:
                    other.say(replace(HELLO, session=f"{step + 1:04}{number:04}"))
                other.heard(messages.Alive)
            server.step(0.05)
            clips += len(honest.heard(messages.ClipHeader))
            if clips >= 20:
                return
    raise AssertionError(f"{clips} clips in {MOST_STEPS} steps")


def test_who_comes_last_does_not_wait_for_head_starts_of_all_before(record, driven, monkeypatch):
    monkeypatch.setattr("online.queue.server.TURN_SECONDS", 1e-4)  # for one of them a step
    record("a", 4000)
    with driven() as (server, peer):
        before, last, clips = [peer() for _ in range(12)], peer(), 0
        for number, other in enumerate(before):
            other.say(replace(HELLO, session=f"{number:08}"))
        for _ in range(MOST_STEPS):
            server.step(0.001)
            clips += sum(len(other.heard(messages.ClipHeader)) for other in before)
            if clips >= 2 * len(before):  # so that each has had its first
                break
        assert clips >= 2 * len(before)
        last.say(replace(HELLO, session="last0000"))
        steps = 0
        while not last.heard(messages.ClipHeader):
            server.step(0.05)
            steps += 1
            assert steps < len(before)


def test_a_trainer_that_asks_for_lists_without_end_gets_one_and_so_do_others(
    record, driven, monkeypatch
):
    monkeypatch.setattr("online.clips.catalog.STEP_NAMES", 1)
    for name in "abcdef":
        record(name, 40)
    with driven() as (server, peer):
        greedy, honest = peer(), peer()
        greedy.say(messages.List(0))
        server.step(0.5)  # its list is the first
        honest.say(messages.List(7))
        answers: dict[Peer, list[messages.Listed]] = {greedy: [], honest: []}
        for step in range(MOST_STEPS):
            greedy.say(messages.List(step + 1))
            server.step(0.05)
            for asking, listed in answers.items():
                listed += asking.heard(messages.Listed)
            if all(answers.values()):
                break
    assert [answer.request for answer in answers[honest]] == [7]
    assert answers[greedy][0].request > 1  # that of the last message
    assert [len(listed[0].recordings) for listed in answers.values()] == [6, 6]


def test_a_flood_does_not_keep_the_session_of_a_silent_trainer_for_ever(
    record, driven, monkeypatch
):
    monkeypatch.setattr("online.queue.server.MESSAGES_PER_TURN", 1)
    record("a", 400)
    with driven() as (server, peer):
        silent, flooding = peer(), peer()
        silent.say(replace(HELLO, credit=1 << 14))
        while not server.counters.connected:
            server.step(0.05)
        monkeypatch.setattr(messages, "SILENCE_SECONDS", 0.01)
        for _ in range(20 * MOST_STEPS):
            with suppress(zmq.Again):
                for _ in range(20):
                    flooding.say(messages.Alive("nobody's"))
            server.step(0.05)
            flooding.heard(messages.Lost)
            if server.counters.silent:
                return
    raise AssertionError("the session of a silent trainer is still kept")
