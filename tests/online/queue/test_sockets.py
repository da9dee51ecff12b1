"""What becomes of a connection, in words: real sockets, also of those that hang up."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq

from online.clips.request import ClipRequest
from online.errors import ServerError, ServerSilent
from online.queue import messages, sockets
from online.queue.client import Client
from online.queue.keys import TrainerKeys, load_keys, make_keys

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


NOT_OURS = "what answers there is not a setcon server; check host and port"


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:*", "tcp://[::1]:*", "ipc://{}/s"])
@pytest.mark.parametrize("keyed", [False, True])
def test_that_only_one_side_has_keys_is_an_error_with_the_remedy(tmp_path, keys, where, keyed):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.ipv6 = "[" in where
        if keyed:
            router.curve_secretkey, router.curve_server = keys.own.secret, True
        router.bind(where.format(tmp_path))
        address = router.getsockopt_string(zmq.LAST_ENDPOINT)
        remedy = "give --keys and --server-key" if keyed else "start it with --keys and --allow"
        with (
            Client(address, keys=None if keyed else keys) as client,
            pytest.raises(ServerError, match=remedy),
        ):
            client.recordings()


def test_a_server_too_busy_to_say_that_it_has_no_keys_before_it_hangs_up_is_asked_again(keys):
    def greet(stream: socket.socket) -> None:
        """Hang up on a peer of another mechanism before its own has left, as libzmq may."""
        stream.sendall(GREETING[:11])
        missing = 11
        while missing and (part := stream.recv(missing)):
            missing -= len(part)
        stream.settimeout(0.1)
        try:
            stream.recv(64)  # the mechanism, or nothing more where the peer has left
        except TimeoutError:
            stream.sendall(GREETING[11:])

    with (
        answering(greet) as address,
        Client(address, keys=keys) as client,
        pytest.raises(ServerError, match="the server has no keys"),
    ):
        client.recordings()


def test_a_server_whose_every_handshake_fails_is_given_up_with_the_key_to_look_at(
    keys, monkeypatch
):
    monkeypatch.setattr(sockets, "MAX_FAILED_HANDSHAKES", 3)
    with (
        answering(lambda stream: stream.sendall(GREETING[:11])) as address,
        Client(address, keys=keys) as client,
        pytest.raises(ServerError, match=r"\d handshakes failed; the key given by --server-key is"),
    ):
        client.recordings()


@pytest.mark.parametrize(
    ("keyed", "said"), [(False, b"SSH-2.0-x\r\n"), (True, b"HTTP/1.1 400 Bad Request\r\n\r\n")]
)
def test_another_program_is_an_error_at_once(keys, keyed, said):
    with (
        answering(lambda stream: stream.sendall(said)) as address,
        Client(address, keys=keys if keyed else None) as client,
        pytest.raises(ServerError, match=NOT_OURS) as caught,
    ):
        client.recordings()
    assert str(caught.value).startswith(f"{address}: ")


def test_another_program_that_goes_on_listening_is_an_error_at_once():
    def greet(stream: socket.socket) -> None:
        stream.sendall(b"SSH-2.0-x\r\n")
        while stream.recv(64):
            pass

    with (
        answering(greet) as address,
        Client(address) as client,
        pytest.raises(ServerError, match=NOT_OURS),
    ):
        client.recordings()


def test_a_trainer_that_streams_from_another_program_is_an_error_at_once():
    with (
        answering(lambda stream: stream.sendall(b"SSH-2.0-x\r\n")) as address,
        Client(address) as client,
    ):
        client.open(ClipRequest())
        with pytest.raises(ServerError, match=NOT_OURS):
            client.next_clip(20.0)


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
