"""The sockets of both ends: none is without a limit, and none waits.

    trainer   Dealer ── connected to one server, knows in words what has become of that
    server    Outbox ── sends over a ROUTER, knows how much ZeroMQ still holds for each trainer

ZeroMQ connects and shakes hands by itself, again and again, and does not report it on the socket.
Its monitor does: `Dealer.state` and its errors follow from the monitor's events, and of a failed
handshake from what the server greets with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from online.errors import MessageDamaged, ServerError, WireError
from online.queue import greeting, messages
from online.queue.address import connect
from online.queue.keys import TrainerKeys

MAX_FAILED_HANDSHAKES = 30
"""In a row, at some eight a second, after which keys are taken for wrong: a server that is
restarted behind a proxy fails some handshakes too."""
MAX_TRAINER_BYTES = 128 << 20
"""Under way to one trainer, and at most one message more."""
MAX_TOTAL_BYTES = 1 << 30
"""Under way to all; beyond it each may have one message under way, so that no one is starved."""
TRACKED_BYTES = 4096
"""Smaller parts are not counted: ZeroMQ holds a thousand messages for each trainer at most."""

_EVENTS = (
    zmq.Event.CONNECTED
    | zmq.Event.CLOSED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
)

_UNHEARD = "not connected yet"
_REFUSED = "it cannot be connected to; is a server running there?"
_MUTE = "something listens there, but says nothing: a busy or stopped server, or another program"
_HANGS_UP = "something listens there, but hangs up; is a server running there?"
_HANGS_UP_ON_KEYS = "it hangs up; does --server-key name this server's key?"
_SILENT = "it is a server, but says nothing; it may be busy or stopped"


def limited_socket(
    context: zmq.Context, kind: int, *, max_bytes: int, max_messages: int
) -> zmq.Socket[Any]:
    """A socket that forgets unsent messages when closed, and drops a peer that sends larger parts.

    Without a limit libzmq allocates whatever size a peer announces. About
    `max_messages` of each peer are kept until they are taken; the rest waits at the peer.
    """
    socket = context.socket(kind)
    socket.linger = 0
    socket.maxmsgsize = max_bytes
    socket.rcvhwm = max_messages
    return socket


class Dealer:
    """A trainer's DEALER socket, and its handshakes."""

    def __init__(
        self,
        context: zmq.Context,
        address: str,
        keys: TrainerKeys | None,
        *,
        max_bytes: int,
        max_messages: int,
    ) -> None:
        """Connect to `address`.

        Raises AddressError: there can be no such address.
        """
        self._address = address
        self._keys = keys
        self._failed = 0
        self._is_shaking_hands = False
        self._is_alike = False  # the server is known to want keys just as this side does
        self.socket = limited_socket(
            context, zmq.DEALER, max_bytes=max_bytes, max_messages=max_messages
        )
        self._monitor: zmq.Socket[Any] | None = None
        self.state = _UNHEARD
        """What has become of the connection, in words that follow a colon."""
        try:
            # without a ZAP domain or keys, libzmq takes whatever greets it for a ZeroMQ of 2011
            # and waits forever; with one it disconnects, which the monitor reports
            self.socket.zap_domain = b"setcon"
            if keys is not None:
                keys.apply(self.socket)
            self._monitor = self.socket.get_monitor_socket(_EVENTS)
            connect(self.socket, address)
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Look at what has become of the handshakes.

        Raises ServerError: the server does not let this trainer in, and will not, or is another
        program.
        """
        failed_before = self._failed
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)
            self._note(event["event"], event["value"])
        if self._failed > failed_before and not self._is_alike:
            self._compare_mechanisms()
        if self._keys is not None and self._failed >= MAX_FAILED_HANDSHAKES:
            raise ServerError(
                f"{self._address}: {self._failed} handshakes failed; the key given by --server-key "
                "is not this server's; copy its .public file here again"
            )

    @property
    def monitor(self) -> zmq.Socket[Any]:
        """What becomes of the handshakes; readable when `check` has something to look at."""
        assert self._monitor is not None  # once it is connected
        return self._monitor

    @property
    def is_unsure(self) -> bool:
        """Whether the connection may still get further than its state says."""
        return self.state in (_UNHEARD, _MUTE)

    def decode(self, part: zmq.Frame) -> messages.ToTrainer:
        """The reply that the first part of a message holds.

        Raises MessageDamaged: it was damaged on its way; WireError: the server is another program
        or version.
        """
        try:
            return messages.decode_reply(part.buffer)
        except MessageDamaged:
            raise
        except WireError as error:
            raise WireError(f"{self._address}: {error}") from error

    def close(self, *, linger_milliseconds: int = 0) -> None:
        """Close the socket; what is not sent by then is forgotten."""
        self.socket.disable_monitor()
        if self._monitor is not None:
            self._monitor.close()
        self.socket.close(linger=linger_milliseconds)

    def _note(self, event: int, value: int) -> None:
        if event == zmq.Event.CONNECTED:
            self._is_shaking_hands = True
            if self.state != self._hangs_up():  # which it may be about to do again
                self.state = _MUTE
        elif event == zmq.Event.CLOSED:  # before there was a connection
            self.state = _REFUSED
        elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
            self.state, self._failed, self._is_shaking_hands = _SILENT, 0, False
        elif event == zmq.Event.DISCONNECTED:
            # a ZeroMQ that hangs up in the middle of a handshake has failed it; only of what does
            # not greet as ZeroMQ does libzmq turn away for good, without calling it a failure
            if self._is_shaking_hands:
                raise ServerError(
                    f"{self._address}: what answers there is not a setcon server; check host and "
                    "port"
                )
        else:
            self._note_failure(event, value)

    def _note_failure(self, event: int, value: int) -> None:
        self.state, self._is_shaking_hands = self._hangs_up(), False
        self._failed += 1
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            raise ServerError(
                f"{self._address}: the server does not know this trainer's key "
                f"{self._own_key()}; copy its .public file to the server, to where --allow is"
            )
        if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            raise ServerError(f"{self._address}: {self._mismatch()}")

    def _compare_mechanisms(self) -> None:
        found = greeting.mechanism_at(self._address)
        own, other = greeting.PLAIN, greeting.KEYED
        if self._keys is not None:
            own, other = other, own
        if found == other:
            raise ServerError(f"{self._address}: {self._mismatch()}")
        self._is_alike = found == own

    def _hangs_up(self) -> str:
        return _HANGS_UP if self._keys is None else _HANGS_UP_ON_KEYS

    def _own_key(self) -> str:
        return self._keys.own.public.decode() if self._keys is not None else ""

    def _mismatch(self) -> str:
        if self._keys is None:
            return "the server asks for keys; give --keys and --server-key"
        return (
            "the server has no keys; start it with --keys and --allow, "
            "or leave --keys and --server-key out"
        )


@dataclass(slots=True, eq=False)
class _UnderWay:
    """Messages to one trainer, oldest first."""

    messages: deque[tuple[zmq.MessageTracker, int]] = field(default_factory=deque)
    nbytes: int = 0


class Outbox:
    """Sends over a ROUTER socket, without copying and without waiting."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket
        self._under_way: dict[bytes, _UnderWay] = {}

    def has_room(self, identity: bytes) -> bool:
        """Whether so little is under way to a trainer that more may be sent."""
        self._settle()
        own = self._under_way.get(identity)
        if own is None:
            return True
        total = sum(under_way.nbytes for under_way in self._under_way.values())
        return own.nbytes < MAX_TRAINER_BYTES and total < MAX_TOTAL_BYTES

    def send(self, identity: bytes, parts: Sequence[Any]) -> None:
        """Send a message, whose parts stay as they are until it has left.

        Raises zmq.Again: the trainer's queue is full; zmq.ZMQError: EHOSTUNREACH, there is no
        such trainer any more.
        """
        frames = [_frame(part) for part in parts]
        self._socket.send_multipart([identity, *frames], zmq.NOBLOCK, copy=False)
        tracked = [frame for frame in frames if isinstance(frame, zmq.Frame)]
        if tracked:
            under_way = self._under_way.setdefault(identity, _UnderWay())
            nbytes = sum(map(len, frames))
            under_way.messages.append((zmq.MessageTracker(*tracked), nbytes))
            under_way.nbytes += nbytes

    def _settle(self) -> None:
        """Forget what has left, or was dropped with its trainer."""
        for identity, under_way in list(self._under_way.items()):
            while under_way.messages and under_way.messages[0][0].done:
                under_way.nbytes -= under_way.messages.popleft()[1]
            if not under_way.messages:
                del self._under_way[identity]


def _frame(part: Any) -> Any:
    view = memoryview(part).cast("B")
    return zmq.Frame(view, copy=False, track=True) if len(view) >= TRACKED_BYTES else view
