"""What a server has sent and ZeroMQ still holds: bounded, whatever the trainers read.

send ──▶ [ under way, per trainer ] ──▶ kernel, network, trainer
             has_room says no here while a trainer does not read
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

MAX_TRAINER_BYTES = 128 << 20
"""Under way to one trainer, and at most one message more."""
MAX_TOTAL_BYTES = 1 << 30
"""Under way to all; beyond it each may have one message under way, so that nobody is starved."""
TRACKED_BYTES = 4096
"""Smaller parts are not counted: ZeroMQ holds a thousand messages for each trainer at most."""


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
