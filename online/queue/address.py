"""Where a server may be reached: loopback TCP, a Unix socket of its owner alone, or with keys.

    tcp://127.0.0.1:5555    tcp://127.0.0.1:*    tcp://[::1]:5555    tcp://localhost:5555
    ipc:///run/user/1000/setcon/server
    tcp://0.0.0.0:5555      tcp://camera.lan:5555   only with keys: see `online.queue.keys`

Loopback TCP trusts every user of the machine; an ipc folder of mode 0700 trusts its owner only.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from ingest.addresses import scheme_of
from online.errors import AddressError, AddressInUse

MAX_IPC_PATH_BYTES = 107
"""What the kernel's sockaddr_un holds; a longer path is cut off or fails."""


def is_server(location: object) -> bool:
    """Whether a location is the address of a server, or several of them, and not a store."""
    return scheme_of(location) in ("tcp", "ipc")


def check_address(address: str, *, keyed: bool = False) -> str:
    """The address as ZeroMQ takes it; `keyed` says that only holders of keys are let in there.

    Raises AddressError: it is neither TCP nor an ipc path of permitted length, or other machines
    can reach it and it is not `keyed`.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "tcp":
        return _check_tcp(address, rest, keyed=keyed)
    if scheme == "ipc":
        return _check_ipc(address, rest)
    raise AddressError(f"{address}: not an address; write tcp://127.0.0.1:PORT or ipc://PATH")


@contextmanager
def bound(socket: zmq.Socket, address: str, *, keyed: bool = False) -> Iterator[str]:
    """Bind `socket` and give the address it can be reached at; unbinds on the way out.

    The folder of an ipc path is made if it is missing.

    Raises AddressInUse: another server is bound there; AddressError: the address is refused, or its
    folder is open to others.
    """
    address = check_address(address, keyed=keyed)
    if address.startswith("tcp://"):
        yield _bind(socket, address)
        return
    path = Path(address.removeprefix("ipc://"))
    _check_folder(path.parent)
    # a second bind of one ipc path succeeds and steals it silently, so a lock file decides
    with _locked(path.with_name(path.name + ".lock"), address):
        try:
            endpoint = _bind(socket, address)
            path.chmod(0o600)
            yield endpoint
        finally:
            path.unlink(missing_ok=True)


def connect(socket: zmq.Socket, address: str) -> None:
    """Connect `socket` to an address that was checked; nothing needs to listen there yet.

    Raises AddressError: ZeroMQ knows no such address.
    """
    socket.ipv6 = address.startswith("tcp://[")
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        raise AddressError(
            f"{address}: cannot be connected to ({error.strerror}); write tcp://HOST:PORT"
        ) from error


def _check_tcp(address: str, rest: str, *, keyed: bool) -> str:
    host, _, port = rest.rpartition(":")
    if not (port == "*" or (port.isdecimal() and 0 < int(port) < 65536)):
        raise AddressError(f"{address}: {port!r} is not a port; write tcp://127.0.0.1:PORT")
    if host == "localhost":
        return f"tcp://127.0.0.1:{port}"
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not host:
        raise AddressError(f"{address}: names no host; write tcp://127.0.0.1:PORT")
    if not (loopback or keyed):
        raise AddressError(
            f"{address}: {host} is not loopback, and other machines need CURVE keys: `setcon "
            "keygen` makes them; serve and capture take --keys and --allow, train takes "
            "--keys and --server-key"
        )
    return address


def _check_ipc(address: str, path: str) -> str:
    size = len(os.fsencode(path))
    if not path or path.startswith("@") or path.endswith("/"):
        raise AddressError(f"{address}: ipc needs the path of a socket file")
    if size > MAX_IPC_PATH_BYTES:
        raise AddressError(
            f"{address}: the path has {size} bytes, a socket allows {MAX_IPC_PATH_BYTES}; "
            "use a shorter folder"
        )
    return address


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise AddressError(f"{folder}: cannot hold a socket ({error.strerror})") from error
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077 or found.st_uid != os.getuid():
        raise AddressError(
            f"{folder}: has mode {mode:04o} and owner {found.st_uid}, so others could reach the "
            "socket; use a folder of your own with mode 0700"
        )


@contextmanager
def _locked(path: Path, address: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise AddressInUse(f"{address}: another server is bound here") from error
    finally:
        os.close(descriptor)  # the file stays: removing it would let two processes hold two locks


def _bind(socket: zmq.Socket, address: str) -> str:
    socket.ipv6 = address.startswith("tcp://[")
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise AddressInUse(
                f"{address}: another program is bound here; choose another address"
            ) from error
        raise AddressError(f"{address}: cannot be bound ({error})") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)
