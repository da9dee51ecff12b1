"""One stream's connection: sessions that follow each other until the stream has come through.

    receive() ──▶ waits on the socket ──▶ next message in sequence ──▶ returned
                     │
                     ├─ silence for 3 s ─────────────────────────┐
                     ├─ the server does not know the session ────┼──▶ Hello: a new session,
                     └─ a hole in the sequence ──────────────────┘    from the cursor on

What still arrives of an older session is discarded and counted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import zmq

from online import wire
from online.errors import ServerError, WireError
from online.wire import Cursor

MAX_PATIENCE_SECONDS = 30.0
BYE_MILLISECONDS = 200
"""How long leaving may take to tell the server so."""


@dataclass(slots=True)
class ClientCounters:
    """What a client has seen of one server."""

    clips: int = 0
    clip_bytes: int = 0
    reconnects: int = 0
    """Sessions opened again after the first."""
    stale: int = 0
    """Messages of an earlier session, discarded."""
    holes: int = 0
    """Messages that did not follow their predecessor."""
    damaged: int = 0
    """Clips whose size or checksum was wrong."""
    waited_seconds: float = 0.0
    """Time spent in ``next_clip``."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A message that was next in sequence, with its raw parts."""

    message: wire.Epoch | wire.ClipHeader | wire.End
    parts: list[zmq.Frame]

    @property
    def nbytes(self) -> int:
        """What it costs of the credit, if it is a clip."""
        return wire.clip_bytes(self.parts[0].buffer, sum(len(part) for part in self.parts[1:]))


class Connection:
    """A DEALER socket and its current session; nothing in it waits without bound."""

    def __init__(
        self,
        context: zmq.Context,
        address: str,
        want: wire.Hello,
        *,
        cursor: Callable[[], Cursor | None],
        counters: ClientCounters,
    ) -> None:
        """Say ``want`` to the server, from ``cursor()`` on; its session is filled in here."""
        self._context = context
        self._address = address
        self._want = want
        self._cursor = cursor
        self._counters = counters
        self._session = ""
        self._sequence = 0
        self._taken_bytes = 0
        self._granted = 0
        self._heard_at = self._spoke_at = 0.0
        self._patience = wire.SILENCE_SECONDS
        self._socket = self._connect()
        self._hello()

    def receive(self, deadline: float) -> Arrival | None:
        """The next message in sequence; None if there is none before ``deadline`` (monotonic).

        Raises:
            ServerError: the server refuses.
            WireError: the server is another program or version.
        """
        self._heard_at = time.monotonic()  # while nobody listened, silence meant nothing
        while (left := deadline - time.monotonic()) > 0:
            if self._socket.poll(round(1000 * min(left, wire.HEARTBEAT_SECONDS / 2)) + 1):
                self._heard_at, self._patience = time.monotonic(), wire.SILENCE_SECONDS
                arrival = self._take(self._socket.recv_multipart(copy=False))
                if arrival is not None:
                    return arrival
            else:
                self._keep_alive(time.monotonic())
        return None

    def grant(self, taken_bytes: int) -> None:
        """Let the server send as much again as was taken, a quarter of the window at a time."""
        window = self._want.credit
        self._taken_bytes += taken_bytes
        if self._taken_bytes + window - self._granted >= window // 4:
            self._granted = self._taken_bytes + window
            self._send(wire.Credit(self._session, self._granted))

    def reopen(self) -> None:
        """Begin a new session at the cursor."""
        self._counters.reconnects += 1
        self._hello()

    def close(self) -> None:
        """Leave the server."""
        self._socket.linger = BYE_MILLISECONDS
        self._send(wire.Bye(self._session))
        self._socket.close()

    def _keep_alive(self, now: float) -> None:
        if now - self._heard_at > self._patience:
            # a server that plans a large store may be slow: each session waits longer
            self._patience = min(2 * self._patience, MAX_PATIENCE_SECONDS)
            self._heard_at = now
            self._socket.close()  # with it goes whatever was under way, both ways
            self._socket = self._connect()
            self.reopen()
        elif now - self._spoke_at > wire.HEARTBEAT_SECONDS:
            self._send(wire.Alive(self._session))

    def _take(self, parts: list[zmq.Frame]) -> Arrival | None:
        message = wire.decode_reply(parts[0].buffer)
        if isinstance(message, wire.Refused) and message.session in (None, self._session):
            raise ServerError(message.message)
        if isinstance(message, wire.Listed | wire.Fetched):
            raise WireError(f"{self._address}: sent {type(message).__name__} unasked")
        if message.session != self._session:
            self._counters.stale += 1
        elif isinstance(message, wire.Lost):
            self.reopen()
        elif isinstance(message, wire.Epoch | wire.ClipHeader | wire.End):
            if message.sequence == self._sequence:
                self._sequence += 1
                return Arrival(message, parts)
            self._counters.holes += 1
            self.reopen()
        return None

    def _connect(self) -> zmq.Socket[Any]:
        # no clip is larger than the credit, so nothing larger needs to be let in
        limit = max(self._want.credit, wire.MAX_HEADER_BYTES)
        socket = wire.limited_socket(self._context, zmq.DEALER, max_bytes=limit)
        socket.connect(self._address)
        return socket

    def _hello(self) -> None:
        self._session = secrets.token_hex(8)
        self._sequence = self._taken_bytes = 0
        self._granted = self._want.credit
        self._send(
            msgspec.structs.replace(self._want, session=self._session, cursor=self._cursor())
        )

    def _send(self, message: wire.ToServer) -> None:
        self._spoke_at = time.monotonic()
        # where a thousand messages wait for a dead server, a new session will tell it all
        with suppress(zmq.Again):
            self._socket.send(wire.encode(message), zmq.NOBLOCK)
