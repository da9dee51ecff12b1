"""What a server greets with, read from real servers and from programs that are not one."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import zmq

from online.queue import greeting
from online.queue.greeting import KEYED, PLAIN, mechanism_at


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:*", "tcp://[::1]:*", "ipc://{}/s"])
@pytest.mark.parametrize("mechanism", [PLAIN, KEYED])
def test_a_server_names_its_mechanism(tmp_path, where, mechanism):
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.ipv6 = "[" in where
        if mechanism == KEYED:
            router.curve_secretkey, router.curve_server = zmq.curve_keypair()[1], True
        router.bind(where.format(tmp_path))
        assert mechanism_at(router.getsockopt_string(zmq.LAST_ENDPOINT)) == mechanism


@contextmanager
def saying(words: bytes) -> Iterator[str]:
    """The address of a program that says `words` to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError), listener.accept()[0] as stream:
                stream.sendall(words)

        thread = threading.Thread(target=answer)
        thread.start()
        yield "tcp://{}:{}".format(*listener.getsockname())
        thread.join(20.0)


def test_what_hangs_up_or_says_nothing_or_is_not_there_has_none(tmp_path, monkeypatch):
    with saying(b"\xff") as address:
        assert mechanism_at(address) is None
    assert mechanism_at(address) is None
    assert mechanism_at(f"ipc://{tmp_path}/none") is None
    monkeypatch.setattr(greeting, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert mechanism_at("tcp://{}:{}".format(*silent.getsockname())) is None


def test_what_another_program_says_is_neither():
    with saying(b"SSH-2.0-a_rather_long_name_of_a_server\r\n") as address:
        assert mechanism_at(address) not in (PLAIN, KEYED, None)
