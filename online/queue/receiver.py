"""A thread that listens to one server: clips wait here, checked, while the trainer learns.

    server ── clips ──▶ Connection ──▶ checked, cursor moved ──▶ waiting, within the credit ──▶ take
           ◀── Alive, Credit ──────────────────────── bytes taken ◀────────────────────────────┘

It answers heartbeats whatever the trainer does, so a server that hears nothing for 3 s knows that
the whole process hangs. Credit is granted for what was taken, so what waits is bounded by it.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import zmq

from online.clips.clip import Clip, ClipSpec
from online.clips.cursor import Cursor
from online.errors import ServerSilent, WireError
from online.queue import messages
from online.queue.connection import Arrival, ClientCounters, Connection
from online.queue.keys import TrainerKeys


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A clip that arrived whole, or the word that its frames were deleted."""

    clip: Clip
    cursor: Cursor
    """The place after it."""
    nbytes: int
    """What it cost of the credit."""


class Receiver:
    """One server's clips in the order of its plan, each once, even if the server is restarted."""

    def __init__(
        self,
        context: zmq.Context,
        address: str,
        want: messages.Hello,
        *,
        server: int,
        keys: TrainerKeys | None,
        cursor: Cursor | None,
        counters: ClientCounters,
    ) -> None:
        """Ask the server at `address` for `want`, from `cursor` on; returns at once.

        Its clips carry the number `server`.
        """
        self._context = context
        self._address = address
        self._want = want
        self._server = server
        self._keys = keys
        self._cursor = cursor
        self._counters = counters
        self._changed = threading.Condition()
        self._waiting: deque[Delivery] = deque()
        self._taken_cursor = cursor
        self._taken_bytes = self._to_grant = 0
        self._ended = self._agreed = False
        self.recorded: frozenset[str] = frozenset()
        """What is being recorded, as far as the server has said."""
        self._error: BaseException | None = None
        self._closing = False
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"receive {address}", daemon=True)
        self._thread.start()

    def take(self, timeout_seconds: float) -> Delivery | None:
        """The next clip; None when all epochs asked for are over.

        Raises ServerSilent: no clip came in time; OnlineError: the server refused, or sent what it
        must not; all that came before was taken.
        """
        with self._changed:
            if not self._changed.wait_for(self._has_news, timeout_seconds):
                raise ServerSilent(
                    f"{self._address}: no clip in {timeout_seconds:g} s; is a server running "
                    "there, and does its store have new footage?"
                )
            if not self._waiting:
                if self._error is not None:
                    raise self._error
                return None
            delivery = self._waiting.popleft()
            self._counters.waiting_bytes -= delivery.nbytes
            self._taken_cursor = delivery.cursor
            self._taken_bytes += delivery.nbytes
            if self._taken_bytes - self._to_grant >= self._want.credit // 4:
                self._to_grant = self._taken_bytes
                self._look_up()
            return delivery

    def agree(self, timeout_seconds: float) -> None:
        """Wait until the server has made the plan of the cursor; errors as in `take`."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._agreed or self._error is not None, timeout_seconds
            ):
                raise ServerSilent(
                    f"{self._address}: no answer in {timeout_seconds:g} s; is a server running "
                    "there?"
                )
            if not self._agreed and self._error is not None:
                raise self._error

    @property
    def has_ended(self) -> bool:
        """Whether all clips of all epochs asked for have arrived, taken or not."""
        return self._ended

    def close(self) -> None:
        """Leave the server."""
        self._closing = True
        self._look_up()
        self._thread.join()  # it looks up at once
        self._wake.close()
        self._woken.close()

    def _has_news(self) -> bool:
        return bool(self._waiting) or self._ended or self._error is not None

    def _look_up(self) -> None:
        """Wake the thread, to look at what was taken and whether it should leave."""
        with suppress(BlockingIOError):  # then it has plenty to wake up for
            self._wake.send(b"!")

    def _run(self) -> None:
        try:
            connection = Connection(
                self._context,
                self._address,
                self._want,
                keys=self._keys,
                cursor=self._begin_session,
                counters=self._counters,
                wake=self._woken,
            )
            try:
                self._listen(connection)
            finally:
                connection.close()
        except BaseException as error:  # raised in the thread that asks for clips
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _begin_session(self) -> Cursor | None:
        """Where a new session begins: after what was taken, as its credit counts from there."""
        with self._changed:
            self._waiting.clear()
            self._counters.waiting_bytes = self._taken_bytes = self._to_grant = 0
            self._ended = False
            self.recorded = frozenset()  # until this session says otherwise
            self._cursor = self._taken_cursor
            return self._cursor

    def _listen(self, connection: Connection) -> None:
        while not self._closing:
            arrival = connection.receive()
            if arrival is not None:
                self._sort(connection, arrival)
            with suppress(BlockingIOError):  # it was not woken
                self._woken.recv(4096)
            connection.grant(self._to_grant)

    def _sort(self, connection: Connection, arrival: Arrival) -> None:
        message = arrival.message
        if isinstance(message, messages.Alive | messages.Epoch) and not self._ended:
            self.recorded = frozenset(message.recorded)
        if isinstance(message, messages.End):
            connection.is_complete = True
            self.recorded = frozenset()
            with self._changed:
                self._ended = self._agreed = True
                self._changed.notify_all()
        elif isinstance(message, messages.Epoch):
            with self._changed:
                self._agreed = True
                self._changed.notify_all()
            was, new = self._cursor, message.cursor
            if was is None or (was.epoch, was.round) != (new.epoch, new.round):
                self._cursor = new
        elif isinstance(message, messages.ClipHeader | messages.Released):
            self._take_in(connection, message, arrival)

    def _take_in(
        self,
        connection: Connection,
        message: messages.ClipHeader | messages.Released,
        arrival: Arrival,
    ) -> None:
        try:
            delivery = self._unpack(message, arrival)
        except WireError as error:
            connection.damaged(error)
            return
        connection.arrived_whole()
        self._cursor = delivery.cursor
        with self._changed:
            self._waiting.append(delivery)
            self._counters.waiting_bytes += delivery.nbytes
            self._changed.notify_all()

    def _unpack(
        self, message: messages.ClipHeader | messages.Released, arrival: Arrival
    ) -> Delivery:
        if self._cursor is None or message.index != self._cursor.index:
            raise WireError(f"{self._address}: sent clip {message.index} out of turn")
        after = msgspec.structs.replace(self._cursor, index=message.index + 1)
        if isinstance(message, messages.Released):
            spec = ClipSpec(message.recording, message.start, message.length, self._server)
            return Delivery(Clip.released(spec), after, arrival.nbytes)
        frames = messages.unpack_frames(message.frames, [part.buffer for part in arrival.parts[1:]])
        if frames.gap[1:].any():
            raise WireError(f"{self._address}: sent a clip with a gap inside")
        spec = ClipSpec(message.recording, message.start, len(frames), self._server)
        return Delivery(Clip(spec, frames), after, arrival.nbytes)
