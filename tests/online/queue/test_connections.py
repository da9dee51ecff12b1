"""Connections by the numbers of their files, which the kernel gives to others once free."""

import logging
import socket
from pathlib import Path

import zmq

from online.queue.arrivals import Arrivals
from online.queue.connections import Connections
from online.queue.sparing import SparingLog


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_number_that_is_a_files_by_now_is_left_alone(tmp_path):
    connections = Connections(1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as peer:
            number = peer.fileno()
            connections.begin(number)
            assert connections.acked_at(number) is not None
        with (tmp_path / "file").open("w") as file:
            assert file.fileno() == number
            before = open_files()
            connections.begin(number)
            assert connections.look() is None
            assert open_files() == before
            assert connections.acked_at(number) is None
            file.write("it is still open")


def test_a_trainer_whose_connection_was_given_to_another_is_forgotten():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        address = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        arrivals = Arrivals(router, SparingLog(logging.getLogger("peers")))
        numbers: dict[int, bytes] = {}
        forgotten = None
        for _ in range(50):
            with context.socket(zmq.DEALER) as peer:
                peer.linger = 0
                peer.connect(address)
                peer.send(b"x")
                assert router.poll(20_000)
                arrival = arrivals.next()  # the end of the last one is not looked at
                number = arrival.part.get(zmq.SRCFD)
                assert arrivals.is_connected(arrival.identity)
            if forgotten := numbers.get(number):
                break
            numbers[number] = arrival.identity
        assert forgotten is not None
        assert not arrivals.is_connected(forgotten)
        arrivals.close()


def test_who_has_just_come_is_looked_at_though_nothing_is_ever_said(monkeypatch):
    looked = []
    look = Connections.look
    monkeypatch.setattr(Connections, "look", lambda self: looked.append(len(self)) or look(self))
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        arrivals = Arrivals(router, SparingLog(logging.getLogger("peers")))
        with socket.create_connection(("127.0.0.1", port)):
            for _ in range(10):  # each as long as a server waits that has nothing to do, or less
                assert not arrivals.wait(5.0)
                if looked[-2:] == [1, 1]:
                    break
        assert looked[-2:] == [1, 1]
        arrivals.close()
