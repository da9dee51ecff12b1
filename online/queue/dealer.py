"""A trainer's socket: connected to one server, and told why it is not let in.

A handshake that fails is tried again and again by ZeroMQ, unseen; its monitor tells of it here. It
cannot tell why a server hung up that did so first, and that server is asked for its mechanism.
"""

from __future__ import annotations

from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from online.errors import MessageDamaged, ServerError, WireError
from online.queue import messages
from online.queue.address import connect
from online.queue.greeting import mechanism_at
from online.queue.security import TrainerKeys

ASK_AFTER_FAILURES = 3
"""Of so many handshakes that fail in a row, the last has the server asked for its mechanism."""
MAX_FAILED_HANDSHAKES = 30
"""In a row, at some eight a second, after which the server will not come to answer them: one that
is restarted behind a proxy fails some too."""

_UNHEARD = "nothing has come of connecting to it yet"
_REFUSED = "it cannot be connected to; is a server running there?"
_MUTE = "something listens there, but says nothing: a busy or stopped server, or another program"
_HANGS_UP = "something listens there, but hangs up; is a server running there?"
_HANGS_UP_ON_KEYS = "it hangs up; is the key given by --server-key its own?"
_SILENT = "it is a server, but says nothing; it may be busy or stopped"


class Dealer:
    """A DEALER socket, and its handshakes."""

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
        self.socket: zmq.Socket[Any] = messages.limited_socket(
            context, zmq.DEALER, max_bytes=max_bytes, max_messages=max_messages
        )
        self._monitor: zmq.Socket[Any] | None = None
        self.state = _UNHEARD
        """What has become of the connection, in words that follow a colon."""
        try:
            if keys is not None:
                keys.apply(self.socket)
            self._monitor = self.socket.get_monitor_socket(
                zmq.Event.CONNECTED
                | zmq.Event.CLOSED
                | zmq.Event.DISCONNECTED
                | zmq.Event.HANDSHAKE_SUCCEEDED
                | zmq.Event.HANDSHAKE_FAILED_AUTH
                | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
                | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
            )
            connect(self.socket, address)
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Look at what has become of the handshakes.

        Raises ServerError: the server does not let this trainer in, and will not.
        """
        assert self._monitor is not None  # once it is connected
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            if event["event"] == zmq.Event.CONNECTED:
                self._is_shaking_hands = True
                if self.state != self._hangs_up():  # which it may be about to do again
                    self.state = _MUTE
            elif event["event"] == zmq.Event.CLOSED:  # before there was a connection
                self.state = _REFUSED
            elif event["event"] == zmq.Event.DISCONNECTED:
                # ZeroMQ with keys hangs up on another program for good, and calls it no failure
                if self._is_shaking_hands:
                    self.state, self._is_shaking_hands = self._hangs_up(), False
                    self._check_mechanism()
            elif event["event"] == zmq.Event.HANDSHAKE_SUCCEEDED:
                self.state, self._failed, self._is_shaking_hands = _SILENT, 0, False
            elif event["event"] == zmq.Event.HANDSHAKE_FAILED_AUTH:
                raise ServerError(
                    f"{self._address}: the server does not know this trainer's key "
                    f"{self._own_key()}; copy its .public file to the server, to where --allow is"
                )
            elif event["value"] == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
                raise ServerError(self._mismatch())
            else:
                self.state, self._is_shaking_hands = self._hangs_up(), False
                self._failed += 1
                if self._failed % ASK_AFTER_FAILURES == 0:
                    self._check_mechanism()
        if self._keys is not None and self._failed >= MAX_FAILED_HANDSHAKES:
            raise ServerError(
                f"{self._address}: {self._failed} handshakes failed; the key given by --server-key "
                "is not this server's, copy its .public file here again"
            )

    def ask(self) -> None:
        """Where a handshake does not come to its end, ask the server itself who it is.

        Raises ServerError: it is another program, or does not let this trainer in.
        """
        if self.state in (_MUTE, self._hangs_up()):
            self._check_mechanism()

    @property
    def is_unsure(self) -> bool:
        """Whether more may come of the connection yet than its state says."""
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

    def _hangs_up(self) -> str:
        return _HANGS_UP if self._keys is None else _HANGS_UP_ON_KEYS

    def _own_key(self) -> str:
        return self._keys.own.public.decode() if self._keys is not None else ""

    def _check_mechanism(self) -> None:
        wanted = "NULL" if self._keys is None else "CURVE"
        if mechanism_at(self._address) not in (wanted, None):
            raise ServerError(self._mismatch())

    def _mismatch(self) -> str:
        if self._keys is None:
            return f"{self._address}: the server asks for keys; give --keys and --server-key"
        return (
            f"{self._address}: the server has no keys; start it with --keys and --allow, "
            "or leave --keys and --server-key out"
        )
