"""What a server greets with: its mechanism, which says whether it asks for keys.

    signature, 10 bytes │ 3 │ 0 or 1 │ mechanism, 20 bytes: NULL or CURVE │ ...    64 bytes in all

ZeroMQ's own handshake cannot always report it: where the mechanisms of two sides differ, the first
to read the other's greeting hangs up, and a busy server does so before its own has left.
"""

from __future__ import annotations

import socket
import time

TIMEOUT_SECONDS = 1.0
"""For a server to greet; one that is this busy is asked again after the next failed handshake."""
PLAIN, KEYED = b"NULL", b"CURVE"

_OPENING = b"\xff" + bytes(8) + b"\x7f\x03"
"""The signature and version, to which a server answers with its mechanism; it is never told ours,
so it has no reason to hang up first."""
_MECHANISM = slice(12, 32)


def mechanism_at(address: str) -> bytes | None:
    """The mechanism that a server at `address` names; None if nothing there greets in time."""
    until = time.monotonic() + TIMEOUT_SECONDS
    try:
        with _connected(address) as stream:
            stream.sendall(_OPENING)
            greeting = b""
            while len(greeting) < _MECHANISM.stop:
                stream.settimeout(max(0.001, until - time.monotonic()))
                part = stream.recv(_MECHANISM.stop - len(greeting))
                if not part:
                    return None
                greeting += part
    except OSError:  # refused, too late, or hung up
        return None
    return greeting[_MECHANISM].rstrip(b"\0")


def _connected(address: str) -> socket.socket:
    scheme, _, rest = address.partition("://")
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_SECONDS)
    stream = socket.socket(socket.AF_UNIX)
    try:
        stream.settimeout(TIMEOUT_SECONDS)
        stream.connect(rest)
    except BaseException:
        stream.close()
        raise
    return stream
