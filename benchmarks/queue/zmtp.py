"""Bytes as ZeroMQ puts them on a TCP connection, for peers that break its rules."""

import socket
from contextlib import suppress

MORE, LONG = 0x01, 0x02
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def shake_hands(peer: socket.socket, kind: bytes) -> None:
    """Greet as a socket of some kind, and wait until the other side has done so too."""
    ready = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    peer.sendall(_GREETING + bytes([0x04, len(ready)]) + ready)
    heard = b""
    while len(heard) < len(_GREETING) + 2 or len(heard) < len(_GREETING) + 2 + heard[65]:
        heard += peer.recv(4096)


def frame(body: bytes, *, more: bool) -> bytes:
    """One part of a message."""
    flags = LONG | (MORE if more else 0)
    return bytes([flags]) + len(body).to_bytes(8, "big") + body


def send_endless_parts(peer: socket.socket, kind: bytes, *, part_bytes: int = 64 << 10) -> None:
    """Send one message that has no last part, until the other side hangs up."""
    with suppress(ConnectionError):
        shake_hands(peer, kind)
        parts = frame(bytes(part_bytes), more=True) * max(1, (1 << 20) // part_bytes)
        while True:
            peer.sendall(parts)
