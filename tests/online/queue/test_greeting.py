"""What a server says of itself before a handshake: real sockets, also of those that hang up."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq

from online.errors import ServerError, ServerSilent
from online.queue import messages
from online.queue.client import Client
from online.queue.greeting import mechanism_at
from online.queue.keys import load_keys, make_keys
from online.queue.security import TrainerKeys

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)


@pytest.fixture
def keys(tmp_path: Path) -> TrainerKeys:
    own, server = (load_keys(make_keys(tmp_path / name).parent) for name in ("own", "server"))
    return TrainerKeys(own, server.public)


@contextmanager
def answering(greet) -> Iterator[str]:
    """A TCP server that calls `greet` with each connection and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    stream, _ = listener.accept()
                except OSError:
                    return
                with stream, suppress(OSError):  # the other side may hang up at any time
                    stream.settimeout(20.0)
                    greet(stream)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield "tcp://{}:{}".format(*listener.getsockname())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20.0)


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:*", "tcp://[::1]:*", "ipc://{}/s"])
@pytest.mark.parametrize("keyed", [False, True])
def test_a_server_names_its_mechanism(tmp_path, keys, where, keyed):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.ipv6 = "[" in where
        if keyed:
            router.curve_secretkey, router.curve_server = keys.own.secret, True
        router.bind(where.format(tmp_path))
        address = router.getsockopt_string(zmq.LAST_ENDPOINT)
        assert mechanism_at(address) == ("CURVE" if keyed else "NULL")


def test_where_nobody_answers_as_zeromq_does_there_is_none():
    with answering(lambda stream: None) as address:
        assert mechanism_at(address) is None
    assert mechanism_at(address) is None  # nobody listens any more
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "tcp://{}:{}".format(*silent.getsockname())
        assert mechanism_at(address, timeout_seconds=0.05) is None


def test_a_server_that_hangs_up_before_it_names_its_mechanism_is_asked_for_it(keys):
    def greet(stream: socket.socket) -> None:
        """What ZeroMQ does where the other side is quicker."""
        stream.sendall(GREETING[:10])
        heard = b""
        while len(heard) < 11:
            heard += stream.recv(64) or bytes(64)
        stream.sendall(GREETING[10:11])  # the other side now says the rest of its greeting
        stream.settimeout(0.5)
        try:
            while len(heard) < 32:
                heard += stream.recv(64) or bytes(64)
        except TimeoutError:
            stream.sendall(GREETING[11:])

    with (
        answering(greet) as address,
        Client(address, keys=keys) as client,
        pytest.raises(ServerError, match="the server has no keys; start it with --keys"),
    ):
        client.recordings()


@pytest.mark.parametrize(
    ("keyed", "said"), [(False, b"SSH-2.0-x\r\n"), (True, b"HTTP/1.1 400 Bad Request\r\n\r\n")]
)
def test_another_program_is_told_of_by_what_it_says(keys, keyed, said):
    with (
        answering(lambda stream: stream.sendall(said)) as address,
        Client(address, keys=keys if keyed else None) as client,
        pytest.raises(ServerError, match="no setcon server, it begins with b'") as caught,
    ):
        client.recordings()
    assert repr(said[:24]) in str(caught.value)


def test_another_program_that_goes_on_listening_is_told_of(monkeypatch):
    monkeypatch.setattr(messages, "SILENCE_SECONDS", 0.5)

    def greet(stream: socket.socket) -> None:
        stream.sendall(b"SSH-2.0-x\r\n")
        while stream.recv(64):
            pass

    with (
        answering(greet) as address,
        Client(address) as client,
        pytest.raises(ServerError, match=r"no setcon server, it begins with b'SSH-2\.0-x"),
    ):
        client.recordings()


def test_whether_anything_listens_is_told_while_a_server_is_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(messages, "SILENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "tcp://{}:{}".format(*silent.getsockname())
        with Client(address, timeout_seconds=0.5) as client, pytest.raises(ServerSilent) as caught:
            client.recordings()
    words = "something listens there, but says nothing: a busy or stopped server, or another"
    assert words in str(caught.value)
    (warned,) = caplog.messages
    assert f"no answer for 0.2 s, waiting for it for 0.5 s in all: {words}" in warned
    with (
        answering(lambda stream: None) as address,
        Client(address, timeout_seconds=1.0) as client,
        pytest.raises(ServerSilent, match="something listens there, but hangs up"),
    ):
        client.recordings()
    refused = pytest.raises(ServerSilent, match="it cannot be connected to; is a server running")
    with Client(address, timeout_seconds=0.5) as client, refused:
        client.recordings()
