"""The trainer's end of one server: clips with credit, and random access beside them.

    next_clip() ──▶ Connection ──▶ Epoch: the cursor of a new epoch
                                   ClipHeader: checked, granted anew, returned; the cursor moves
                                   End: None

However often either side is restarted, each clip of the plan is returned once, in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

import msgspec
import zmq

from ingest.frame import Frames
from online import wire
from online.address import check_address
from online.catalog import RecordingSummary
from online.clip import Clip, ClipConfig, ClipSpec
from online.connection import Arrival, ClientCounters, Connection
from online.errors import ServerError, ServerSilent, WireError
from online.remote import RemoteStore
from online.wire import Cursor

MAX_DAMAGED = 3
"""Damaged clips in a row after which it is no accident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """Which clips a trainer wants from a server."""

    clip: ClipConfig = field(default_factory=ClipConfig)
    recordings: str = "*"
    order: wire.Order | None = None
    """None leaves it to the server."""
    seed: int = 0
    """Decides a shuffled order."""
    shard: int = 0
    """Which of ``shards`` equal parts of every epoch."""
    shards: int = 1
    max_epochs: int = 0
    """0 is without end."""
    credit_bytes: int = 64 << 20
    """How much may be under way; at least two clips."""

    def hello(self, *, checksum: bool) -> wire.Hello:
        """The message that asks for it; session and cursor are filled in by the connection."""
        return wire.Hello(
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
    """One server; a FrameSource, and a stream of clips once ``open`` was called.

    For one thread at a time, but ``recordings`` and ``fetch`` may be called from any.
    """

    def __init__(
        self, address: str, *, timeout_seconds: float = 30.0, checksum: bool | None = None
    ) -> None:
        """Make a client of the server at ``address``; nothing is sent yet.

        Args:
            address: see ``online.address``.
            timeout_seconds: how long ``recordings`` and ``fetch`` wait for a server.
            checksum: whether buffers are checked by CRC-32C; None means over TCP.

        Raises:
            AddressError: neither loopback TCP nor ipc.
        """
        self.address = check_address(address)
        self.counters = ClientCounters()
        self._checksum = address.startswith("tcp:") if checksum is None else checksum
        self._context = zmq.Context()
        self._remote = RemoteStore(
            self._context, self.address, timeout_seconds=timeout_seconds, checksum=self._checksum
        )
        self._connection: Connection | None = None
        self._cursor: Cursor | None = None
        self._ended = False
        self._damaged_in_a_row = 0

    def recordings(self) -> list[RecordingSummary]:
        """What there is now, sorted by name; errors as in ``RemoteStore``."""
        return self._remote.recordings()

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length; errors as in ``RemoteStore``."""
        return self._remote.fetch(recording, start, length, masks=masks)

    @property
    def cursor(self) -> Cursor | None:
        """The place behind the clip returned last; None before the server's first word."""
        return self._cursor

    def open(self, request: StreamRequest, *, cursor: Cursor | None = None) -> None:
        """Ask for clips, from ``cursor`` on; returns at once, and may be called again."""
        if self._connection is not None:
            self._connection.close()
        self._cursor, self._ended, self._damaged_in_a_row = cursor, False, 0
        self._connection = Connection(
            self._context,
            self.address,
            request.hello(checksum=self._checksum),
            cursor=lambda: self._cursor,
            counters=self.counters,
        )

    def next_clip(self, timeout_seconds: float = 60.0) -> Clip | None:
        """The next clip of the plan; None when all epochs asked for are over.

        A server that hangs or is restarted is waited for, within ``timeout_seconds``.

        Raises:
            ServerError: the server refuses; ServerSilent if no clip came in time.
            WireError: the server is another program or version, or keeps sending damaged clips.
        """
        if self._connection is None:
            raise ServerError(f"{self.address}: open() must be called before clips are asked for")
        started = time.monotonic()
        clip: Clip | None = None
        while clip is None and not self._ended:
            arrival = self._connection.receive(started + timeout_seconds)
            if arrival is None:
                raise ServerSilent(
                    f"{self.address}: no clip in {timeout_seconds:g} s; is a server running there, "
                    "and has its store anything new?"
                )
            clip = self._take(self._connection, arrival)
        self.counters.waited_seconds += time.monotonic() - started
        return clip

    def clips(self, timeout_seconds: float = 60.0) -> Iterator[Clip]:
        """All clips that are still to come; errors as in ``next_clip``."""
        while (clip := self.next_clip(timeout_seconds)) is not None:
            yield clip

    def close(self) -> None:
        """Leave the server; closing twice is allowed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._remote.close()
        self._context.term()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, connection: Connection, arrival: Arrival) -> Clip | None:
        message = arrival.message
        if isinstance(message, wire.End):
            self._ended = True
        elif isinstance(message, wire.Epoch):
            was, new = self._cursor, message.cursor
            if was is None or (was.epoch, was.round) != (new.epoch, new.round):
                self._cursor = new
        else:
            connection.grant(arrival.nbytes)
            return self._take_clip(connection, message, arrival.parts)
        return None

    def _take_clip(
        self, connection: Connection, message: wire.ClipHeader, parts: list[zmq.Frame]
    ) -> Clip | None:
        try:
            clip, self._cursor = self._unpack(message, parts)
        except WireError:
            self.counters.damaged += 1
            self._damaged_in_a_row += 1
            if self._damaged_in_a_row == MAX_DAMAGED:
                raise
            connection.reopen()
            return None
        self._damaged_in_a_row = 0
        self.counters.clips += 1
        self.counters.clip_bytes += clip.nbytes
        return clip

    def _unpack(self, message: wire.ClipHeader, parts: list[zmq.Frame]) -> tuple[Clip, Cursor]:
        """The clip, and the cursor behind it."""
        frames = wire.unpack_frames(message.frames, [part.buffer for part in parts[1:]])
        if self._cursor is None or message.index != self._cursor.index:
            raise WireError(f"{self.address}: sent clip {message.index} out of turn")
        if frames.gap[1:].any():
            raise WireError(f"{self.address}: sent a clip with a gap inside")
        spec = ClipSpec(message.recording, message.start, len(frames))
        clip = Clip(spec, frames.images, frames.pts_ns, frames.captured_ns)
        return clip, msgspec.structs.replace(self._cursor, index=message.index + 1)
