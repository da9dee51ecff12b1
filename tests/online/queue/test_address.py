import socket as sockets
from pathlib import Path

import pytest
import zmq

from online.errors import AddressError, AddressInUse
from online.queue.address import bound, check_address, connect


@pytest.fixture
def router():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        yield socket


@pytest.fixture
def other():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        yield socket


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://192.168.0.7:1", "tcp://[::]:1"]
)
def test_addresses_that_other_machines_reach_are_refused(address):
    with pytest.raises(AddressError, match="not loopback, and other machines need CURVE"):
        check_address(address)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("127.0.0.1:5555", "not an address"),
        ("inproc://x", "not an address"),
        ("tcp://127.0.0.1", "not a port"),
        ("tcp://127.0.0.1:99999", "not a port"),
        ("tcp://:5555", "names no host"),
        ("ipc://", "path of a socket file"),
        ("ipc://@abstract", "path of a socket file"),
        ("ipc:///" + "x" * 107, "the path has 108 bytes, a socket allows 107"),
    ],
)
def test_what_is_not_an_address_is_refused_with_what_is(address, complaint):
    with pytest.raises(AddressError, match=complaint):
        check_address(address)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:5555", "tcp://127.9.9.9:*", "tcp://[::1]:5555", "ipc:///a/b"]
)
def test_loopback_and_ipc_are_taken_as_they_are(address):
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:5555", "tcp://*:*", "tcp://camera.lan:1", "tcp://[fd00::2]:1"]
)
def test_addresses_that_other_machines_reach_are_taken_with_keys(address):
    assert check_address(address, keyed=True) == address


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:*", "tcp://*:5555", "tcp://a b:5555"])
def test_addresses_that_cannot_be_connected_to_are_named(router, address):
    with pytest.raises(AddressError, match=r"cannot be connected to .* write tcp://HOST:PORT"):
        connect(router, address)


def test_localhost_means_the_loopback_address():
    assert check_address("tcp://localhost:5555") == "tcp://127.0.0.1:5555"


def test_a_free_port_is_chosen_and_named(router):
    with bound(router, "tcp://127.0.0.1:*") as endpoint:
        assert endpoint.startswith("tcp://127.0.0.1:")
        assert int(endpoint.rpartition(":")[2]) > 0


def test_a_second_bind_of_an_ipc_path_is_refused_and_the_first_stays_reachable(
    router, other, tmp_path
):
    address = f"ipc://{tmp_path}/own/s"
    with bound(router, address):
        with (
            pytest.raises(AddressInUse, match="another server is bound here"),
            bound(other, address),
        ):
            pass
        with router.context.socket(zmq.DEALER) as dealer:
            dealer.connect(address)
            dealer.send(b"hello")
            assert router.poll(20_000)
    assert not (tmp_path / "own" / "s").exists()
    with bound(other, address):
        pass


def test_a_tcp_port_in_use_is_named(router):
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUse, match=address), bound(router, address):
            pass


def test_a_socket_folder_is_made_for_its_owner_alone(router, tmp_path):
    with bound(router, f"ipc://{tmp_path}/new/s"):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "new" / "s").stat().st_mode & 0o777 == 0o600


def test_a_socket_folder_open_to_others_is_refused(router, tmp_path: Path):
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(AddressError, match="mode 0755"), bound(router, f"ipc://{folder}/s"):
        pass


def test_a_socket_folder_that_cannot_be_made_is_named(router, tmp_path: Path):
    (tmp_path / "file").write_text("")
    address = f"ipc://{tmp_path}/file/s"
    with pytest.raises(AddressError, match="cannot hold a socket"), bound(router, address):
        pass


def test_a_socket_left_by_a_killed_server_does_not_block_the_next(router, tmp_path: Path):
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    with sockets.socket(sockets.AF_UNIX) as left:
        left.bind(str(folder / "s"))
    with bound(router, f"ipc://{folder}/s") as endpoint:
        assert endpoint == f"ipc://{folder}/s"
