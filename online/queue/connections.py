"""ZeroMQ's TCP connections as the kernel counts them, to close those that would fill memory.

    bytes received  since the last whole message: a peer may send one in endless parts, which ZeroMQ
                    collects before the program sees any, as it limits only the size of each
    bytes acked     where they do not grow, a peer does not read what waits for it

The sockets of ipc count nothing; only this program's own user reaches those.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_COOKIE = 57  # SO_COOKIE of Linux: a number that no other socket has had
_INFO_BYTES = 256
_COUNTS = struct.Struct("120xQQ")  # tcpi_bytes_acked and tcpi_bytes_received in struct tcp_info


@dataclass(slots=True)
class _Connection:
    cookie: bytes
    acked: int
    acked_at: float
    """When the count was last seen to have grown."""
    received: int
    finished: int = 0
    """Bytes that had been received when a whole message was last seen."""
    is_heard: bool = False
    """Whether one was seen since the last look."""


class Connections:
    """The connections of one socket, looked at now and then."""

    def __init__(self, most_unfinished_bytes: int) -> None:
        """Allow for so many bytes of unfinished messages, over all connections together."""
        self._most_unfinished_bytes = most_unfinished_bytes
        self._open: dict[int, _Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, descriptor: int) -> None:
        """Watch a connection; one that is not TCP is left alone."""
        with suppress(OSError), _opened(descriptor) as connection:
            acked, received = _counts(connection)
            cookie = _cookie(connection)
            self._open[descriptor] = _Connection(cookie, acked, time.monotonic(), received)

    def end(self, descriptor: int) -> None:
        """It is closed."""
        self._open.pop(descriptor, None)

    def heard(self, descriptor: int) -> None:
        """A whole message came from it."""
        if descriptor in self._open:
            self._open[descriptor].is_heard = True

    def look(self) -> int | None:
        """Count anew, and close the connection with the most unfinished bytes where there are too
        many; returns how many it had then.

        To be called when no whole message waits, or after some of each peer were read.
        """
        for descriptor in [*self._open]:
            self._count(descriptor)
        unfinished = {key: it.received - it.finished for key, it in self._open.items()}
        if sum(unfinished.values()) <= self._most_unfinished_bytes:
            return None
        worst = max(unfinished, key=unfinished.__getitem__)
        self.close(worst)
        return unfinished[worst]

    def acked_at(self, descriptor: int) -> float | None:
        """When a peer was last seen to read; None where that is not known."""
        connection = self._open.get(descriptor)
        return None if connection is None else connection.acked_at

    def close(self, descriptor: int) -> None:
        """Close a connection: ZeroMQ then frees what waits on it."""
        known = self._open.pop(descriptor, None)
        with suppress(OSError), _opened(descriptor) as connection:
            if known is not None and _cookie(connection) == known.cookie:
                # ZeroMQ, which notices the shutdown, then closes it without waiting for the peer
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)

    def _count(self, descriptor: int) -> None:
        known = self._open[descriptor]
        try:
            with _opened(descriptor) as connection:
                acked, known.received = _counts(connection)
                if _cookie(connection) != known.cookie:
                    raise OSError  # the number was given to another file
        except OSError:
            self.end(descriptor)
            return
        if acked > known.acked:
            known.acked, known.acked_at = acked, time.monotonic()
        if known.is_heard:
            known.finished, known.is_heard = known.received, False


@contextmanager
def _opened(descriptor: int) -> Iterator[socket.socket]:
    """A connection of ZeroMQ, which closes it itself."""
    copy = os.dup(descriptor)
    try:
        connection = socket.socket(fileno=copy)
    except OSError:  # the number is that of a file now
        os.close(copy)
        raise
    with connection:
        yield connection


def _cookie(connection: socket.socket) -> bytes:
    return connection.getsockopt(socket.SOL_SOCKET, _COOKIE, 8)


def _counts(connection: socket.socket) -> tuple[int, int]:
    """Bytes that the peer has acknowledged, and bytes that were received from it."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _COUNTS.size:
        raise OSError("this kernel does not count")
    return _COUNTS.unpack_from(info)
