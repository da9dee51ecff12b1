"""The trainer's end of one server: clips with credit, and random access beside them.

    next_clip() ──▶ waits on the socket ──▶ clip, in sequence and at the cursor ──▶ returned,
                       │                    and its bytes granted to the server anew
                       ├─ silence for 3 s, or the server does not know us ─┐
                       └─ a hole in the sequence, a damaged clip ──────────┴─▶ new session at the
                                                                               cursor

Whatever still arrives of an older session is discarded and counted, so each clip of the plan is
returned once, in order, however often either side was restarted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import msgspec
import zmq

from ingest.frame import Frames
from online import wire
from online.address import check_address
from online.catalog import RecordingSummary
from online.clip import Clip, ClipConfig, ClipSpec
from online.errors import ServerError, ServerSilent, WireError
from online.remote import RemoteStore
from online.wire import Cursor

MAX_DAMAGED = 3
"""Damaged clips in a row after which it is no accident."""
MAX_PATIENCE_SECONDS = 30.0
BYE_MILLISECONDS = 200


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


@dataclass(slots=True)
class ClientCounters:
    """What one connection has seen."""

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
        self._socket: zmq.Socket[Any] | None = None
        self._request: StreamRequest | None = None
        self._cursor: Cursor | None = None
        self._ended = False
        self._session = ""
        self._sequence = 0
        self._taken_bytes = 0
        self._granted = 0
        self._damaged_in_a_row = 0
        self._heard_at = self._spoke_at = 0.0
        self._patience = wire.SILENCE_SECONDS

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
        self._request, self._cursor, self._ended = request, cursor, False
        self._new_socket()

    def next_clip(self, timeout_seconds: float = 60.0) -> Clip | None:
        """The next clip of the plan; None when all epochs asked for are over.

        A server that hangs or is restarted is waited for, within ``timeout_seconds``.

        Raises:
            ServerError: the server refuses; ServerSilent if no clip came in time.
            WireError: the server is another program or version, or keeps sending damaged clips.
        """
        started = time.monotonic()
        self._heard_at = started  # while nobody listened, silence meant nothing
        try:
            while not self._ended:
                if parts := self._receive(started + timeout_seconds, timeout_seconds):
                    clip = self._take(parts)
                    if clip is not None:
                        return clip
            return None
        finally:
            self.counters.waited_seconds += time.monotonic() - started

    def clips(self, timeout_seconds: float = 60.0) -> Iterator[Clip]:
        """All clips that are still to come; errors as in ``next_clip``."""
        while (clip := self.next_clip(timeout_seconds)) is not None:
            yield clip

    def close(self) -> None:
        """Leave the server; closing twice is allowed."""
        if self._socket is not None:
            self._socket.linger = BYE_MILLISECONDS
            self._send(wire.Bye(self._session))
            self._socket.close()
            self._socket = None
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

    def _receive(self, deadline: float, timeout_seconds: float) -> list[zmq.Frame]:
        """One message, or nothing after a while; looks after heartbeats and a dead server."""
        socket, now = self._opened()[0], time.monotonic()
        if now >= deadline:
            raise ServerSilent(
                f"{self.address}: no clip in {timeout_seconds:g} s; is a server running there, "
                "and has its store anything new?"
            )
        if socket.poll(round(1000 * min(deadline - now, wire.HEARTBEAT_SECONDS / 2)) + 1):
            self._heard_at, self._patience = time.monotonic(), wire.SILENCE_SECONDS
            return socket.recv_multipart(copy=False)
        if now - self._heard_at > self._patience:
            # a planning server may be slow, so each new session waits longer than the last
            self._patience = min(2 * self._patience, MAX_PATIENCE_SECONDS)
            self.counters.reconnects += 1
            self._new_socket()
        elif now - self._spoke_at > wire.HEARTBEAT_SECONDS:
            self._send(wire.Alive(self._session))
        return []

    def _take(self, parts: list[zmq.Frame]) -> Clip | None:
        """Act on one message; a clip if it is the next one."""
        message = wire.decode_reply(parts[0].buffer)
        if isinstance(message, wire.Refused) and message.session in (None, self._session):
            raise ServerError(message.message)
        if isinstance(message, wire.Listed | wire.Fetched | wire.Refused):
            raise WireError(f"{self.address}: unasked {type(message).__name__}")
        if message.session != self._session:
            self.counters.stale += 1
        elif isinstance(message, wire.Lost):
            self._reopen()
        elif not isinstance(message, wire.Alive):
            return self._take_in_sequence(message, parts)
        return None

    def _take_in_sequence(
        self, message: wire.Epoch | wire.ClipHeader | wire.End, parts: list[zmq.Frame]
    ) -> Clip | None:
        if message.sequence != self._sequence:
            self.counters.holes += 1
            self._reopen()
            return None
        self._sequence += 1
        if isinstance(message, wire.End):
            self._ended = True
        elif isinstance(message, wire.Epoch):
            was, new = self._cursor, message.cursor
            if was is None or (was.epoch, was.round) != (new.epoch, new.round):
                self._cursor = new
        else:
            return self._take_clip(message, parts)
        return None

    def _take_clip(self, message: wire.ClipHeader, parts: list[zmq.Frame]) -> Clip | None:
        self._grant(wire.clip_bytes(parts[0].buffer, sum(len(part) for part in parts[1:])))
        try:
            clip, self._cursor = self._unpack(message, parts)
        except WireError:
            self.counters.damaged += 1
            self._damaged_in_a_row += 1
            if self._damaged_in_a_row == MAX_DAMAGED:
                raise
            self._reopen()
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

    def _grant(self, taken_bytes: int) -> None:
        """Let the server send as much again as was taken, a quarter of the window at a time."""
        window = self._opened()[1].credit_bytes
        self._taken_bytes += taken_bytes
        if self._taken_bytes + window - self._granted >= window // 4:
            self._granted = self._taken_bytes + window
            self._send(wire.Credit(self._session, self._granted))

    def _reopen(self) -> None:
        self.counters.reconnects += 1
        self._hello()

    def _new_socket(self) -> None:
        """A fresh connection: what was under way in the old one, both ways, is gone."""
        assert self._request is not None
        if self._socket is not None:
            self._socket.close()
        limit = max(self._request.credit_bytes, wire.MAX_HEADER_BYTES)
        self._socket = wire.limited_socket(self._context, zmq.DEALER, max_bytes=limit)
        self._socket.connect(self.address)
        self._heard_at = time.monotonic()
        self._hello()

    def _hello(self) -> None:
        _, request = self._opened()
        self._session = secrets.token_hex(8)
        self._sequence = self._taken_bytes = 0
        self._granted = request.credit_bytes
        self._send(
            wire.Hello(
                session=self._session,
                credit=self._granted,
                recordings=request.recordings,
                order=request.order,
                seed=request.seed,
                clip_length=request.clip.clip_length,
                frame_stride=request.clip.frame_stride,
                hop=request.clip.hop,
                shard=request.shard,
                shards=request.shards,
                max_epochs=request.max_epochs,
                cursor=self._cursor,
                checksum=self._checksum,
            )
        )

    def _send(self, message: wire.ToServer) -> None:
        self._spoke_at = time.monotonic()
        # where a thousand messages wait for a dead server, a new session will tell it all
        with suppress(zmq.Again):
            self._opened()[0].send(wire.encode(message), zmq.NOBLOCK)

    def _opened(self) -> tuple[zmq.Socket[Any], StreamRequest]:
        if self._socket is None or self._request is None:
            raise ServerError(f"{self.address}: open() must be called before clips are asked for")
        return self._socket, self._request
