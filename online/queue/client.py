"""The trainer's end of one server: clips with credit, and random access beside them.

    next_clip() ◀── Receiver ◀── Connection ◀── clips     the cursor moves behind what is returned
    fetch()     ──▶ RemoteStore ──────────────▶ frames

However often either side is restarted, each clip of the plan is returned once, in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

import zmq

from ingest.frame import Frames
from online.clips.catalog import RecordingSummary
from online.clips.clip import Clip, ClipConfig
from online.clips.cursor import Cursor, Order
from online.errors import ServerError
from online.queue import messages
from online.queue.address import check_address
from online.queue.connection import ClientCounters
from online.queue.fetch import RemoteStore
from online.queue.receiver import Receiver
from online.queue.security import TrainerKeys

PATIENCE_SECONDS = 120.0
"""How long nothing may come before a server is given up: it may be restarted meanwhile, and one of
a camera sends no clips in the minutes that are held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """Which clips a trainer wants from a server."""

    clip: ClipConfig = field(default_factory=ClipConfig)
    recordings: str = "*"
    order: Order | None = None
    """None leaves it to the server."""
    seed: int = 0
    """Decides a shuffled order."""
    shard: int = 0
    """Which of `shards` equal parts of every epoch."""
    shards: int = 1
    max_epochs: int = 0
    """0 is without end."""
    credit_bytes: int = 64 << 20
    """How much may be under way; at least two clips."""

    def hello(self, *, checksum: bool) -> messages.Hello:
        """The message that asks for it; session and cursor are filled in by the connection."""
        return messages.Hello(
            session="",
            credit=self.credit_bytes,
            recordings=self.recordings,
            order=self.order,
            seed=self.seed,
            clip_length=self.clip.clip_length,
            frame_stride=self.clip.frame_stride,
            hop=self.clip.hop,
            shard=self.shard,
            shards=self.shards,
            max_epochs=self.max_epochs,
            checksum=checksum,
        )


class Client:
    """One server; a FrameSource, and a stream of clips once `open` was called.

    For one thread at a time, but `recordings` and `fetch` may be called from any.
    """

    def __init__(
        self,
        address: str,
        *,
        keys: TrainerKeys | None = None,
        timeout_seconds: float = PATIENCE_SECONDS,
        checksum: bool | None = None,
    ) -> None:
        """Make a client of the server at `address`; nothing is sent yet.

        Args:
            address: see `online.queue.address`.
            keys: to be let in by a server that asks for them.
            timeout_seconds: how long `recordings` and `fetch` wait for a server.
            checksum: whether buffers are checked by CRC-32C; None means over TCP.

        Raises AddressError: neither loopback TCP nor ipc, and there are no keys.
        """
        self.address = check_address(address, keyed=keys is not None)
        self.keys = keys
        self.counters = ClientCounters()
        self._checksum = address.startswith("tcp:") if checksum is None else checksum
        self._context = zmq.Context()
        self._remote = RemoteStore(
            self._context,
            self.address,
            keys=keys,
            timeout_seconds=timeout_seconds,
            checksum=self._checksum,
        )
        self._receiver: Receiver | None = None
        self._cursor: Cursor | None = None

    def recordings(self) -> list[RecordingSummary]:
        """What there is now, sorted by name; errors as in `RemoteStore`."""
        return self._remote.recordings()

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length; errors as in `RemoteStore`."""
        return self._remote.fetch(recording, start, length, masks=masks)

    @property
    def cursor(self) -> Cursor | None:
        """The place behind the clip returned last; None before the server's first word."""
        return self._cursor

    @property
    def recorded(self) -> frozenset[str]:
        """Recordings that somebody adds to just now; known within a second of what happens."""
        return frozenset() if self._receiver is None else self._receiver.recorded

    def open(self, request: StreamRequest, *, cursor: Cursor | None = None) -> None:
        """Ask for clips, from `cursor` on; returns at once, and may be called again."""
        if self._receiver is not None:
            self._receiver.close()
        self._cursor = cursor
        self._receiver = Receiver(
            self._context,
            self.address,
            request.hello(checksum=self._checksum),
            keys=self.keys,
            cursor=cursor,
            counters=self.counters,
        )

    def agree(self, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the server has made the plan that was asked for; errors as in `next_clip`.

        It refuses where what the cursor speaks of was replaced, so what is fetched then is what
        was sent before.
        """
        if self._receiver is None:
            raise ServerError(f"{self.address}: open() must be called before a plan is agreed on")
        self._receiver.agree(timeout_seconds)

    def next_clip(self, timeout_seconds: float = 60.0) -> Clip | None:
        """The next clip of the plan; None when all epochs asked for are over.

        A server that hangs or is restarted is waited for, within `timeout_seconds`.

        Raises ServerError: the server refuses, or does not let this trainer in; ServerSilent if no
        clip came in time; WireError: the server is another program or version, or keeps sending
        damaged clips.
        """
        if self._receiver is None:
            raise ServerError(f"{self.address}: open() must be called before clips are asked for")
        started = time.monotonic()
        delivery = self._receiver.take(timeout_seconds)
        self.counters.waited_seconds += time.monotonic() - started
        if delivery is None:
            return None
        self._cursor = delivery.cursor
        self.counters.clips += 1
        self.counters.clip_bytes += delivery.clip.nbytes
        return delivery.clip

    def clips(self, timeout_seconds: float = 60.0) -> Iterator[Clip]:
        """All clips that are still to come; errors as in `next_clip`."""
        while (clip := self.next_clip(timeout_seconds)) is not None:
            yield clip

    def close(self) -> None:
        """Leave the server; closing twice is allowed."""
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
        self._remote.close()
        # not term(), which waits for ever for a socket that a signal has kept from being kept
        self._context.destroy(linger=0)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
