"""One stream's connection: sessions that follow each other until the stream has come through.

    receive() ──▶ waits on the socket ──▶ next message in sequence ──▶ returned
                     │
                     ├─ silence for 3 s ─────────────────────────┐
                     ├─ the server does not know the session ────┼──▶ Hello: a new session,
                     └─ a hole in the sequence ──────────────────┘    from the cursor on

What still arrives of an older session is discarded and counted.
"""

from __future__ import annotations

import math
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

import msgspec
import zmq

from online.clips.cursor import Cursor
from online.errors import MessageDamaged, ServerError, WireError
from online.queue import messages
from online.queue.keys import TrainerKeys
from online.queue.sockets import Dealer

BYE_MILLISECONDS = 200
"""How long the server may take to hear that the trainer leaves."""
CHECK_SECONDS = 0.1
"""How often the connection is looked at while nothing comes."""
MAX_MESSAGES = 64
"""Messages that ZeroMQ keeps before they are received."""


@dataclass(slots=True)
class ClientCounters:
    """What a client has seen of one server."""

    clips: int = 0
    """Clips returned."""
    clip_bytes: int = 0
    reconnects: int = 0
    """Sessions opened again after the first."""
    stale: int = 0
    """Messages of an earlier session, discarded."""
    damaged: int = 0
    """Messages of which a size or checksum was wrong."""
    waiting_bytes: int = 0
    """Bytes of clips that have arrived and were not returned yet."""

    def __add__(self, other: ClientCounters) -> ClientCounters:
        """What both have seen together."""
        names = (field.name for field in fields(self))
        return ClientCounters(**{n: getattr(self, n) + getattr(other, n) for n in names})


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A message of the session, in its place where it has one, with its raw parts."""

    message: (
        messages.Epoch | messages.ClipHeader | messages.Released | messages.End | messages.Alive
    )
    parts: list[zmq.Frame]

    @property
    def nbytes(self) -> int:
        """What it costs of the credit, if it is a clip."""
        return messages.clip_bytes(self.parts[0].buffer, sum(len(part) for part in self.parts[1:]))


class Connection:
    """A DEALER socket and its current session; nothing in it waits without bound.

    For one thread, which must call `receive` again and again: the server takes one that says
    nothing for 3 s for hung.
    """

    def __init__(
        self,
        context: zmq.Context,
        address: str,
        want: messages.Hello,
        *,
        keys: TrainerKeys | None,
        cursor: Callable[[], Cursor | None],
        counters: ClientCounters,
        wake: socket.socket,
    ) -> None:
        """Say `want` to the server; its session is filled in here.

        `cursor` is asked, at the beginning of each session, where it is to begin. `wake` ends
        a `receive` that waits, when something can be read from it.
        """
        self._context = context
        self._address = address
        self._want = want
        self._keys = keys
        self._cursor = cursor
        self._counters = counters
        self._wake = wake
        self._session = ""
        self._sequence = 0
        self._granted = self._arrived_bytes = 0
        self._heard_at = self._spoke_at = 0.0
        self._damaged_in_a_row = 0
        self.is_complete = False
        """Set once everything has arrived: no other session is needed."""
        self._patience = messages.SILENCE_SECONDS
        self._connect()
        self._hello()

    def receive(self) -> Arrival | None:
        """The next message of the session; None if something else happened, or nothing for a while.

        Raises ServerError: the server refuses, or does not let this trainer in; WireError: the
        server is another program or version, or sends more than was granted.
        """
        asked_at = time.monotonic()
        until_silent = max(0.0, self._heard_at + self._patience - asked_at)
        longest = min(CHECK_SECONDS, until_silent)
        ready = dict(self._poller.poll(math.ceil(1000 * longest)))
        now = time.monotonic()
        arrival = None
        if self._socket in ready:
            self._heard_at, self._patience = now, messages.SILENCE_SECONDS
            try:
                arrival = self._take(self._socket.recv_multipart(copy=False))
            except MessageDamaged as error:
                self.damaged(error)
        else:
            self._dealer.check()
            self._bear_silence(now, stopped=now - asked_at > messages.HEARTBEAT_SECONDS)
        if now - self._spoke_at > messages.HEARTBEAT_SECONDS:
            self._send(messages.Alive(self._session))
        return arrival

    def grant(self, taken_bytes: int) -> None:
        """Let the server send a window more than the `taken_bytes` of this session."""
        if taken_bytes + self._want.credit > self._granted:
            self._granted = taken_bytes + self._want.credit
            self._send(messages.Credit(self._session, self._granted))

    def reopen(self) -> None:
        """Begin a new session at the cursor, unless all has come."""
        if self.is_complete:
            return
        self._counters.reconnects += 1
        self._hello()

    def damaged(self, error: WireError) -> None:
        """Ask again for what arrived damaged; raises `error` where that has not helped."""
        self._counters.damaged += 1
        self._damaged_in_a_row += 1
        if self._damaged_in_a_row == messages.MAX_DAMAGED:
            raise error
        self.reopen()

    def arrived_whole(self) -> None:
        """Note that a clip was undamaged: only clips count, as every session begins with others."""
        self._damaged_in_a_row = 0

    def close(self) -> None:
        """Leave the server."""
        self._send(messages.Bye(self._session))
        self._dealer.close(linger_milliseconds=BYE_MILLISECONDS)

    def _bear_silence(self, now: float, *, stopped: bool) -> None:
        if stopped or self.is_complete:
            self._heard_at = now  # a stopped process hears nothing; a complete one need not
        elif now - self._heard_at >= self._patience:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        """Take the server for dead or hung: begin again with a new socket."""
        self._patience = min(2 * self._patience, messages.MAX_SILENCE_SECONDS)
        self._heard_at = now
        self._dealer.close()  # drops what was under way, both ways
        self._connect()
        self.reopen()

    def _take(self, parts: list[zmq.Frame]) -> Arrival | None:
        message = self._dealer.decode(parts[0])
        if isinstance(message, messages.Refused) and message.session in (None, self._session):
            raise ServerError(message.message)
        if isinstance(message, messages.Listed | messages.Fetched):
            raise WireError(f"{self._address}: sent {type(message).__name__} unasked")
        if message.session != self._session:
            self._counters.stale += 1
        elif isinstance(message, messages.Lost):
            self.reopen()
        elif isinstance(
            message, messages.Epoch | messages.ClipHeader | messages.Released | messages.End
        ):
            if message.sequence == self._sequence:
                self._sequence += 1
                return self._within_credit(Arrival(message, parts))
            self.reopen()
        elif isinstance(message, messages.Alive):
            return Arrival(message, parts)
        return None

    def _within_credit(self, arrival: Arrival) -> Arrival:
        if isinstance(arrival.message, messages.ClipHeader | messages.Released):
            self._arrived_bytes += arrival.nbytes
            if self._arrived_bytes > self._granted:
                raise WireError(
                    f"{self._address}: sent {self._arrived_bytes} bytes of clips, "
                    f"granted were {self._granted}; run the same version of setcon on both"
                )
        return arrival

    def _connect(self) -> None:
        # no clip is larger than the credit, so nothing larger needs to be let in
        limit = max(self._want.credit, messages.MAX_HEADER_BYTES)
        self._dealer = Dealer(
            self._context, self._address, self._keys, max_bytes=limit, max_messages=MAX_MESSAGES
        )
        self._socket: zmq.Socket[Any] = self._dealer.socket
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._dealer.monitor, zmq.POLLIN)
        self._poller.register(self._wake, zmq.POLLIN)

    def _hello(self) -> None:
        self._session = secrets.token_hex(8)
        self._sequence = self._arrived_bytes = 0
        self._granted = self._want.credit
        self._heard_at = time.monotonic()
        self._send(
            msgspec.structs.replace(self._want, session=self._session, cursor=self._cursor())
        )

    def _send(self, message: messages.ToServer) -> None:
        self._spoke_at = time.monotonic()
        # a full queue belongs to a dead server: a new session will send it all again
        with suppress(zmq.Again):
            self._socket.send(messages.encode(message), zmq.NOBLOCK)
