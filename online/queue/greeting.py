"""What a ZeroMQ server says before any handshake: which security mechanism it has.

    signature 10 bytes | version 2 | mechanism 20 | as-server 1 | filler 31        (ZMTP 3.0)

A server that finds another mechanism at the other end may hang up before it has said its own, and
ZeroMQ then cannot tell why. One that has heard only the beginning of a greeting finishes its own.
"""

from __future__ import annotations

import socket

from online.errors import ServerError

_BEGINNING = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x03"
"""Signature and major version: no mechanism yet, so there is nothing to hang up for."""
_MECHANISM = slice(12, 32)
_SHOWN_BYTES = 24
"""Of what another program says, in the error that names it."""


def mechanism_at(address: str, *, timeout_seconds: float = 1.0) -> str | None:
    """`NULL` or `CURVE`; None where nobody answered in time, or who did hung up.

    Each step is given that time.

    `address` is one that `online.queue.address` has checked.

    Raises ServerError: what answers does not speak ZeroMQ.
    """
    try:
        with _connected(address, timeout_seconds) as stream:
            stream.sendall(_BEGINNING)
            greeting = b""
            while len(greeting) < _MECHANISM.stop:
                data = stream.recv(64)
                if not data:
                    return None
                greeting += data
                if not greeting.startswith(_BEGINNING[:1]):
                    raise ServerError(
                        f"{address}: what answers there is no setcon server, it begins with "
                        f"{greeting[:_SHOWN_BYTES]!r}; check host and port"
                    )
    except OSError:
        return None
    return greeting[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")


def _connected(address: str, timeout_seconds: float) -> socket.socket:
    scheme, _, rest = address.partition("://")
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout_seconds)
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(timeout_seconds)
    try:
        stream.connect(rest)
    except BaseException:
        stream.close()
        raise
    return stream
