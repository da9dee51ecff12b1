"""What arrives at a server: one request after another, none of which can be endless."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from online.errors import WireError
from online.queue.connections import Connections
from online.queue.sparing import SparingLog

MAX_UNFINISHED_BYTES = 8 << 20
"""Of requests that have arrived in part, of all trainers together."""
CHECK_SECONDS = 0.02
"""How often connections are looked at, while there are any: a peer on this machine sends 60 MB in
that time."""
CHECK_SHARE = 0.05
"""Of this thread's time looking takes at most so much, so that it looks at hundreds less often."""
RARELY_SECONDS = 0.1
"""But this often however many there are."""
DEAF_SECONDS = 0.5
"""So long a trainer may read nothing of what waits for it, where others wait for the memory."""
DISCARDED_PER_TURN = 10_000
"""Parts of a request that should have one: so many take some milliseconds."""

_EVENTS = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED | zmq.Event.CLOSED


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A request, and who sent it."""

    identity: bytes
    part: zmq.Frame
    has_more: bool

    def whole(self) -> memoryview:
        """The request; WireError where it has further parts, which are not looked at."""
        if self.has_more:
            raise WireError("a request has one part, got several")
        return self.part.buffer


class Arrivals:
    """The reading side of a ROUTER socket."""

    def __init__(self, socket: zmq.Socket[Any], warnings: SparingLog) -> None:
        self._warnings = warnings
        self._socket = socket
        self._monitor = socket.get_monitor_socket(_EVENTS)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)  # who has just come is looked at as well
        self._connections = Connections(MAX_UNFINISHED_BYTES)
        self._descriptors: dict[bytes, int] = {}
        self._identities: dict[int, bytes] = {}
        self._checked_at, self._check_at = -math.inf, 0.0
        self._is_discarding = False

    def wait(self, seconds: float) -> bool:
        """Wait for a request, or some time less; returns whether there is one."""
        now = time.monotonic()
        if now >= self._check_at:
            self._checked_at = now
            self._check()
        if len(self._connections):
            seconds = min(seconds, max(0.0, self._check_at - time.monotonic()))
        ready = dict(self._poller.poll(math.ceil(1000 * seconds)))
        if self._monitor in ready:
            self._follow_connections()
        return self._socket in ready

    def next(self) -> Arrival:
        """The next request; zmq.Again where there is none now."""
        self._discard_rest()
        identity = self._socket.recv(zmq.NOBLOCK)
        part = self._socket.recv(zmq.NOBLOCK, copy=False)
        descriptor: Any = part.get(zmq.SRCFD)
        self._connections.heard(descriptor)
        self._note(identity, descriptor)
        self._is_discarding = part.more
        return Arrival(identity, part, has_more=part.more)

    def is_connected(self, identity: bytes) -> bool:
        """Whether a trainer that was heard is not known to have left."""
        return identity in self._descriptors

    def close_deaf(self, waiting: Iterable[tuple[bytes, float]]) -> None:
        """Close the connections of trainers that do not read.

        `waiting` are those for whom something is under way, and since when.
        """
        for identity, since in waiting:
            descriptor = self._descriptors.get(identity, -1)
            acked_at = self._connections.acked_at(descriptor)
            if acked_at is not None and self._checked_at - max(acked_at, since) > DEAF_SECONDS:
                self._connections.close(descriptor)
                self._warnings.warn("closed a connection on which nothing was read")

    def close(self) -> None:
        """Stop looking at connections."""
        self._socket.disable_monitor()
        self._monitor.close()

    def _note(self, identity: bytes, descriptor: int) -> None:
        self._descriptors[identity] = descriptor
        if self._identities.get(descriptor) != identity:
            self._forget(descriptor)  # the number is another's now, and its end not yet reported
            self._identities[descriptor] = identity

    def _forget(self, descriptor: int) -> None:
        identity = self._identities.pop(descriptor, b"")
        if self._descriptors.get(identity) == descriptor:  # else it has come back on another
            del self._descriptors[identity]

    def _discard_rest(self) -> None:
        for _ in range(DISCARDED_PER_TURN):
            if not self._is_discarding:
                return
            self._socket.recv(zmq.NOBLOCK)
            self._is_discarding = bool(self._socket.rcvmore)
        raise zmq.Again

    def _check(self) -> None:
        self._follow_connections()
        began = time.thread_time()
        if self._connections.look() is not None:
            self._warnings.warn("closed a connection whose request did not end")
        longest = max(CHECK_SECONDS, (time.thread_time() - began) / CHECK_SHARE)
        self._check_at = self._checked_at + min(longest, RARELY_SECONDS)

    def _follow_connections(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            if event["event"] == zmq.Event.ACCEPTED:
                self._connections.begin(event["value"])
            else:
                self._connections.end(event["value"])
                self._forget(event["value"])
