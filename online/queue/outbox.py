"""What a server has under way: it sends without copying and without waiting, and within limits.

ZeroMQ keeps what a trainer does not read, so what is under way to each is counted, and no clip is
read for which there is no room.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

MAX_TRAINER_BYTES = 64 << 20
"""Under way to one trainer, and at most one message more."""
MAX_TOTAL_BYTES = 64 << 20
"""Under way to all, and being read for them; beyond it only for those that have nothing yet."""
MAX_HELD_BYTES = 96 << 20
"""Also for those."""
TRACKED_BYTES = 4096
"""Smaller parts are not counted: ZeroMQ holds a thousand messages for each trainer at most."""


@dataclass(slots=True, eq=False)
class _UnderWay:
    """Messages to one trainer, oldest first."""

    messages: deque[tuple[zmq.MessageTracker, int, float]] = field(default_factory=deque)
    """What tells that it has left, its size, and when it was sent."""
    nbytes: int = 0


class Outbox:
    """Sends over a ROUTER socket."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket
        self._under_way: dict[bytes, _UnderWay] = {}
        self._total = 0

    @property
    def nbytes(self) -> int:
        """Under way to all, when it was last settled."""
        return self._total

    def settle(self) -> None:
        """Forget what has left, or was dropped with its trainer."""
        for identity, under_way in list(self._under_way.items()):
            while under_way.messages and under_way.messages[0][0].done:
                nbytes = under_way.messages.popleft()[1]
                under_way.nbytes -= nbytes
                self._total -= nbytes
            if not under_way.messages:
                del self._under_way[identity]

    def waiting(self) -> list[tuple[bytes, float]]:
        """For whom something is under way, and when the oldest of it was sent."""
        return [(identity, own.messages[0][2]) for identity, own in self._under_way.items()]

    def has_room(self, identity: bytes, nbytes: int, *, held: int) -> bool:
        """Whether so many bytes may be sent to a trainer, where `held` are held for all."""
        own = self._under_way.get(identity)
        if own is None:
            return not held or held + nbytes <= MAX_HELD_BYTES
        return own.nbytes < MAX_TRAINER_BYTES and held + nbytes <= MAX_TOTAL_BYTES

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
            under_way.messages.append((zmq.MessageTracker(*tracked), nbytes, time.monotonic()))
            under_way.nbytes += nbytes
            self._total += nbytes


def _frame(part: Any) -> Any:
    view = memoryview(part).cast("B")
    return zmq.Frame(view, copy=False, track=True) if len(view) >= TRACKED_BYTES else view
