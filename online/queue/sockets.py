"""A socket with limits, and the trainer's: it knows in words what has become of the connection.

ZeroMQ connects and shakes hands by itself, again and again, and does not report it on the socket.
Its monitor does: `Dealer.state` and its errors follow from the monitor's events, and of a failed
handshake from what the server greets with.
"""

from __future__ import annotations

from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from online.errors import MessageDamaged, ServerError, WireError
from online.queue import greeting, messages
from online.queue.address import connect
from online.queue.connections import Connections
from online.queue.keys import TrainerKeys

MAX_FAILED_HANDSHAKES = 30
"""In a row, at some eight a second, after which keys are taken for wrong: a server that is
restarted behind a proxy fails some handshakes too."""
UNREAD_BYTES = 8 << 20
"""What may have arrived and wait in the kernel, which ZeroMQ has not read yet."""

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
        self._connections = Connections(max_bytes + UNREAD_BYTES)
        self._descriptor = -1
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
        program; WireError: it sends a message that does not end.
        """
        failed_before = self._failed
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)
            self._note(event["event"], event["value"])
        if (endless := self._connections.look()) is not None:
            raise WireError(
                f"{self._address}: has sent {endless} bytes of one message, which does not end; is "
                "a setcon server running there?"
            )
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
        """The reply that the first part of a message holds; the message has come as a whole.

        Raises MessageDamaged: it was damaged on its way; WireError: the server is another program
        or version.
        """
        self._connections.heard(self._descriptor)
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
            self._connections.end(self._descriptor)
            self._connections.begin(value)
            self._descriptor = value
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
