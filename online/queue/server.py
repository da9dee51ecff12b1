"""The server: one ROUTER socket, one stream per trainer, clips for as long as there is credit.

    trainer ── Hello(what, credit) ──▶ ┌────────┐ ── Epoch, Clip, Clip, ... ──▶ trainer
            ── Credit(byte offset) ──▶ │ server │ ── Alive every second ──────▶
            ── List, Fetch ──────────▶ └────────┘ ── Listed, Fetched ──────────▶

The credit that the trainer grants bounds the queues of both ends, and the server's own limits what
it holds for all of them. One thread does everything. It never waits for a trainer, and works for
none longer than some milliseconds: then the next one has its turn.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import zmq

from ingest.disk.signals import is_repeat, obeyed
from ingest.errors import IngestError, ReleasedError
from ingest.store.protocols import Store
from online.allocator import give_back_holes
from online.clips.catalog import StoreCatalog
from online.clips.holdout import RecordingSummary
from online.clips.steps import WAIT_SECONDS, WAITING, Steps
from online.errors import MessageDamaged, ServerError, WireError
from online.queue import messages
from online.queue.address import bound
from online.queue.arrivals import Arrivals
from online.queue.keys import ServerKeys
from online.queue.outbox import Outbox
from online.queue.sockets import limited_socket
from online.queue.sparing import SparingLog
from online.queue.stream import SLICE_BYTES, ServeConfig, Stream

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""Longest wait for a message; bounds how long a signal takes to be obeyed."""
RETRY_SECONDS = 0.002
"""Pause while a trainer's queue is full though it has granted credit, or too much is held."""
TURN_SECONDS = 0.01
"""How long trainers are served before messages are read again."""
SHARE_SECONDS = 0.005
"""How long one of them is served before the next, and until it has been sent a clip."""
HEAD_START = 4
"""Turns of a trainer that has just come, for its plan and its first clip; once per connection."""
LONG_SILENCE = 10
"""So many times the usual silence ends a session though messages wait that were not read."""
MESSAGES_PER_TURN = 64
MAX_REQUEST_BYTES = 4 << 20
MAX_REQUESTS = 8
"""Requests of one trainer that ZeroMQ keeps before they are read."""
RECEIVE_BUFFER_BYTES = 1 << 15
"""What may be on its way from one trainer over TCP: a cursor of 20,000 recordings, half a megabyte,
takes some fifteen round trips."""
MAX_SESSIONS = 256
MAX_PLANNED_BYTES = 64 << 20
"""What the plans of all sessions take: mostly 4 bytes for each clip of a shuffled one."""
REPORT_SECONDS = 1.0
DEAF_MILLISECONDS = 10_000
"""A TCP connection on which nothing is read for so long is closed; what waits there is freed."""


@dataclass(slots=True)
class ServerCounters:
    """What a server has done since it began."""

    sessions: int = 0
    """Sessions opened, reconnects included."""
    connected: int = 0
    """Sessions open now."""
    clips: int = 0
    clip_bytes: int = 0
    bytes_per_second: float = 0.0
    """Bytes of clips sent, since the last report."""
    credit_bytes: int = 0
    """Bytes that the open sessions may still be sent."""
    fetches: int = 0
    refused: int = 0
    """Requests that could not be met."""
    rejected: int = 0
    """Messages that were not what they must be."""
    lost: int = 0
    """Sessions whose trainer vanished without leaving."""
    silent: int = 0
    """Sessions closed because their trainer said nothing for 3 s, or 30 s in a flood: it hangs."""


@dataclass(slots=True, eq=False)
class _Session:
    stream: Stream
    heard_at: float
    heartbeat_at: float = 0.0  # so that the first one goes out at once
    head_start: int = 0
    """In so many turns it is still one that has just come, and may be served before the others;
    after its first clip it is not."""


class Server:
    """Answers trainers over a bound ROUTER socket; `step` does one round of work."""

    def __init__(self, catalog: StoreCatalog, socket: zmq.Socket, config: ServeConfig) -> None:
        self._catalog = catalog
        self._warnings = SparingLog(log)
        self._arrivals = Arrivals(socket, self._warnings)
        self._config = config
        self._outbox = Outbox(socket)
        self._held = 0
        self._is_short = False  # of room for what trainers wait for
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        """The one whose turn is longest ago comes first."""
        self._had_head_start: set[bytes] = set()
        self._listings: dict[bytes, tuple[int, Steps[list[RecordingSummary]]]] = {}
        self._totals = ServerCounters()
        self._all_read = True
        self._is_finishing = False
        self._lost_at = -math.inf

    @property
    def counters(self) -> ServerCounters:
        """Totals, and the state of the open sessions, as of now."""
        streams = [session.stream for session in self._sessions.values()]
        credit = sum(stream.credit - stream.sent_bytes for stream in streams)
        return replace(self._totals, connected=len(streams), credit_bytes=credit)

    def close(self) -> None:
        """Stop looking at connections; the socket is closed by its owner, after this."""
        self._arrivals.close()

    def finish(self) -> None:
        """End the streams that follow the store: nothing will be added to it any more."""
        self._is_finishing = True

    @property
    def has_finished(self) -> bool:
        """Whether it was asked to finish, and every trainer has left.

        One that was lost without a word may be about to come back.
        """
        is_awaited = time.monotonic() - self._lost_at < 2 * messages.SILENCE_SECONDS
        return self._is_finishing and not self._sessions and not is_awaited

    def step(self, wait_seconds: float) -> float:
        """Read what has come, send trainers a message each, as many as there is time for.

        Returns how long the next step may wait for a message.
        """
        self._outbox.settle()
        streams = (session.stream for session in self._sessions.values())
        self._held = self._outbox.nbytes + sum(stream.held_bytes for stream in streams)
        if self._is_short:
            self._arrivals.close_deaf(self._outbox.waiting())
            self._is_short = False
        self._all_read = not self._arrivals.wait(wait_seconds) or self._receive()
        wait = min(self._go_on_listing(), self._serve_newcomer())
        now = time.monotonic()  # what a newcomer took is not taken from the others
        for identity in list(self._sessions):
            if time.monotonic() - now > TURN_SECONDS:
                return 0.0
            wait = min(wait, self._serve(identity))
        return wait

    def _serve_newcomer(self) -> float:
        """Serve one trainer that has a head start: one per step, so that the others have theirs."""
        for identity, session in self._sessions.items():
            if session.head_start:
                return self._serve(identity)
        return POLL_SECONDS

    def _serve(self, identity: bytes) -> float:
        """Give a trainer its share of a turn; returns how long it can wait for the next."""
        if identity not in self._sessions:
            return POLL_SECONDS
        session = self._sessions[identity]
        session.head_start = max(0, session.head_start - 1)
        self._sessions.move_to_end(identity)
        now, clips = time.monotonic(), self._totals.clips
        until = now + SHARE_SECONDS
        while identity in self._sessions and now <= until:
            if wait := self._advance(identity, now):
                return wait
            if self._totals.clips != clips:
                session.head_start = 0
                break
            now = time.monotonic()
        return 0.0

    def _receive(self) -> bool:
        """Read until there is nothing more, which is True, or until a request has taken time."""
        for _ in range(MESSAGES_PER_TURN):
            try:
                arrival = self._arrivals.next()
            except zmq.Again:
                return True
            identity = arrival.identity
            try:
                if self._answer(identity, messages.decode_request(arrival.whole())):
                    return False  # others wait for their clips
            except MessageDamaged:
                self._totals.rejected += 1
                if session := self._lose(identity):  # it will send its Hello again
                    self._send(identity, messages.Lost(session.stream.want.session))
            except WireError as error:
                self._totals.rejected += 1
                self._warnings.warn(f"rejected a message: {error}")
                self._send(identity, messages.Refused(message=str(error)))
        return False

    def _answer(self, identity: bytes, message: messages.ToServer) -> bool:
        """Do what a message asks; returns whether that may have taken time."""
        match message:
            case messages.Hello():
                self._open(identity, message)
            case messages.List():
                self._begin_listing(identity, message)
            case messages.Fetch():
                return self._fetch(identity, message)
            case messages.Credit() | messages.Alive() | messages.Bye():
                self._update(identity, message)
        return False

    def _open(self, identity: bytes, want: messages.Hello) -> None:
        self._end(identity)
        try:
            self._check_room_for_session()
        except ServerError as error:
            self._refuse(identity, error, session=want.session)
            return
        stream = Stream(self._catalog, want, self._config)
        session = self._sessions[identity] = _Session(stream, heard_at=time.monotonic())
        if identity not in self._had_head_start:
            session.head_start = HEAD_START
            connected = filter(self._arrivals.is_connected, self._had_head_start)
            self._had_head_start = {identity, *connected}
        self._totals.sessions += 1

    def _check_room_for_session(self) -> None:
        """A session costs its plan, so there is a limit."""
        planned = sum(session.stream.planned_bytes for session in self._sessions.values())
        if len(self._sessions) >= MAX_SESSIONS or planned >= MAX_PLANNED_BYTES:
            raise ServerError(
                f"{self._catalog.store.location}: is already served to {len(self._sessions)} "
                f"trainers, whose plans take {planned} bytes; that is a server's limit, start "
                "another"
            )

    def _update(
        self, identity: bytes, message: messages.Credit | messages.Alive | messages.Bye
    ) -> None:
        session = self._sessions.get(identity)
        if session is None or session.stream.want.session != message.session:
            self._send(identity, messages.Lost(message.session))
            return
        session.heard_at = time.monotonic()
        if isinstance(message, messages.Credit):
            session.stream.credit = max(session.stream.credit, message.offset)
        elif isinstance(message, messages.Bye):
            self._end(identity)

    def _begin_listing(self, identity: bytes, message: messages.List) -> None:
        if identity in self._listings:  # it asks again, and the list goes on
            self._listings[identity] = (message.request, self._listings[identity][1])
        elif len(self._listings) < MAX_SESSIONS:
            self._listings[identity] = (message.request, self._catalog.listing())
        else:
            self._totals.refused += 1  # it will ask again

    def _go_on_listing(self) -> float:
        """Take one list of recordings a step further; returns how long the next step can wait."""
        if not self._listings:
            return POLL_SECONDS
        identity = next(iter(self._listings))
        request, steps = self._listings.pop(identity)
        try:
            step = next(steps)
            self._listings[identity] = request, steps  # the last, so that each has its turn
            if step == WAITING:
                return WAIT_SECONDS
        except StopIteration as end:
            self._send(identity, messages.Listed(request, end.value))
        except (ServerError, IngestError) as error:
            self._refuse(identity, error, request=request)
        return 0.0

    def _fetch(self, identity: bytes, message: messages.Fetch) -> bool:
        try:
            commit = self._catalog.commit(message.recording)
            frame = commit.height * commit.width * (3 + message.masks)
            count = min(message.length, max(1, SLICE_BYTES // frame))
            if not self._outbox.has_room(identity, count * frame, held=self._held):
                # it does not read the replies it asked for, or others do not; it will ask again
                self._totals.refused += 1
                self._is_short = True
                return False
            frames = self._catalog.fetch(
                message.recording, message.start, count, masks=message.masks
            )
        except (IngestError, IndexError, ServerError) as error:
            self._refuse(identity, error, request=message.request)
            return True
        header, buffers = messages.pack_frames(frames, checksum=message.checksum)
        self._send(identity, messages.Fetched(message.request, header), buffers)
        self._held += count * frame
        self._totals.fetches += 1
        return True

    def _advance(self, identity: bytes, now: float) -> float:
        """Send a session its next message, or a heartbeat; returns how long it can wait."""
        session = self._sessions[identity]
        silences = (now - session.heard_at) / messages.SILENCE_SECONDS
        if silences > (1 if self._all_read else LONG_SILENCE):
            # it hangs, or is gone; should it wake up, it hears that its session is lost
            self._lose(identity)
            self._totals.silent += 1
            return POLL_SECONDS
        stream = session.stream
        if now - session.heartbeat_at >= messages.HEARTBEAT_SECONDS:
            session.heartbeat_at = now
            self._send(identity, messages.Alive(stream.want.session, stream.recorded()))
            return 0.0
        stream.is_finishing = self._is_finishing
        may_hold = _Room(self._outbox, identity, self._held)
        try:
            parts = stream.next_message(now, may_hold)
            if stream.is_planning:
                self._check_planned()
        except (ServerError, IngestError, IndexError) as error:
            self._end(identity)
            self._refuse(identity, error, session=stream.want.session)
            return 0.0
        self._held = may_hold.held
        self._is_short |= may_hold.has_refused
        if parts is None:
            if stream.is_waiting:
                return WAIT_SECONDS
            if stream.is_busy:
                return 0.0
            return RETRY_SECONDS if may_hold.has_refused else POLL_SECONDS
        if not self._send_parts(identity, parts):
            return RETRY_SECONDS
        if cost := stream.sent():
            self._totals.clips += 1
            self._totals.clip_bytes += cost
        return 0.0

    def _check_planned(self) -> None:
        planned = sum(session.stream.planned_bytes for session in self._sessions.values())
        if planned > MAX_PLANNED_BYTES:
            raise ServerError(
                f"{self._catalog.store.location}: plans for {len(self._sessions)} trainers would "
                f"take {planned} bytes, and a server's limit is {MAX_PLANNED_BYTES}; use a larger "
                "clip_length or start another server"
            )

    def _lose(self, identity: bytes) -> _Session | None:
        """Forget the session of a trainer that has not left, and may be about to come back."""
        session = self._end(identity)
        if session is not None:
            self._lost_at = time.monotonic()
        return session

    def _end(self, identity: bytes) -> _Session | None:
        session = self._sessions.pop(identity, None)
        if session is not None:
            session.stream.close()
        return session

    def _refuse(
        self,
        identity: bytes,
        error: Exception,
        *,
        session: str | None = None,
        request: int | None = None,
    ) -> None:
        released = isinstance(error, ReleasedError)
        if not released:  # asking for what was deleted is not a fault
            self._totals.refused += 1
            self._warnings.warn(f"refused: {error}")
        refused = messages.Refused(
            message=str(error)[:4000],
            session=session,
            request=request,
            released=released,
        )
        self._send(identity, refused)

    def _send(
        self, identity: bytes, message: messages.ToTrainer, buffers: Sequence[Any] = ()
    ) -> None:
        """Send what may get lost: the trainer asks again after a while."""
        self._send_parts(identity, [messages.encode(message), *buffers])

    def _send_parts(self, identity: bytes, parts: Sequence[Any]) -> bool:
        """Send without copying and without waiting; False if the trainer's queue is full."""
        try:
            self._outbox.send(identity, parts)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._totals.lost += self._lose(identity) is not None
            return False
        return True


class _Room:
    """What may be held for one trainer, asked once by its stream."""

    def __init__(self, outbox: Outbox, identity: bytes, held: int) -> None:
        self._outbox = outbox
        self._identity = identity
        self.held = held
        self.has_refused = False

    def __call__(self, nbytes: int) -> bool:
        if not self._outbox.has_room(self._identity, nbytes, held=self.held):
            self.has_refused = True
            return False
        self.held += nbytes
        return True


def server_socket(context: zmq.Context) -> zmq.Socket[Any]:
    """A socket for a server, not bound yet."""
    socket = limited_socket(
        context, zmq.ROUTER, max_bytes=MAX_REQUEST_BYTES, max_messages=MAX_REQUESTS
    )
    # throttles a peer that never stops sending, over TCP; requests are small
    socket.rcvbuf = RECEIVE_BUFFER_BYTES
    socket.router_mandatory = True  # else messages to a full or vanished peer are dropped unseen
    # not ZeroMQ's own heartbeats: libzmq 4.3.5 aborts where one is due on a connection that was
    # lost while its queue was full
    socket.tcp_maxrt = DEAF_MILLISECONDS
    return socket


def serve(
    store: Store,
    address: str,
    *,
    config: ServeConfig = ServeConfig(),  # noqa: B008 - frozen
    keys: ServerKeys | None = None,
    ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    finish: threading.Event | None = None,
    report: Callable[[ServerCounters], None] | None = None,
) -> ServerCounters:
    """Serve `store` at `address` until SIGINT, SIGTERM or `stop`; blocks.

    `keys` are the server's own and say which trainers it lets in; without them, it lets in all who
    reach it. `ready` is called with the address that trainers connect to, once they can, and
    `report` about once a second with the counters. Another thread sets `stop` to end it, or
    `finish` when nothing more will be added to the store: streams that follow it then end after
    what there is, and this returns once every trainer has left.

    Raises AddressError: the address is refused; AddressInUse if another server has it;
    KeyFileError: the keys are not usable, or no trainer is allowed; ServerError: there are
    recordings, and none can be read, or none matches and none is waited for.
    """
    stop = stop or threading.Event()
    catalog = StoreCatalog(store, holdout=config.holdout, recordings=config.recordings)
    if not catalog.has_any() and catalog.left_out:
        raise ServerError(
            f"{store.location}: nothing to serve: of its recordings none can be read "
            f"({', '.join(sorted(catalog.left_out)[:5])}); `setcon verify {store.location}` names "
            "the damage"
        )
    if not catalog.has_any() and not config.follow and (there := store.recordings()):
        raise ServerError(
            f"{store.location}: no recording matches {config.recordings!r}; there are: "
            f"{', '.join(there[:5])}"
        )
    catalog.warm_up()
    context = zmq.Context()
    socket = server_socket(context)
    try:
        with (
            keys.guarding(socket) if keys is not None else nullcontext(),
            bound(socket, address, keyed=keys is not None) as endpoint,
            _leaving_on_signals(stop),
        ):
            if ready is not None:
                ready(endpoint)
            with closing(Server(catalog, socket, config)) as server:
                return _run(server, stop, finish, report)
    finally:
        socket.close()
        context.term()
        catalog.close()


def _run(
    server: Server,
    stop: threading.Event,
    finish: threading.Event | None,
    report: Callable[[ServerCounters], None] | None,
) -> ServerCounters:
    wait, reported_at, reported_bytes = 0.0, time.monotonic(), 0
    while not stop.is_set() and not server.has_finished:
        if finish is not None and finish.is_set():
            server.finish()
        wait = server.step(wait)
        passed = time.monotonic() - reported_at
        if passed < REPORT_SECONDS:
            continue
        counters = server.counters
        if report is not None:
            rate = (counters.clip_bytes - reported_bytes) / passed
            report(replace(counters, bytes_per_second=rate))
        reported_at, reported_bytes = time.monotonic(), counters.clip_bytes
        give_back_holes()
    return server.counters


@contextmanager
def _leaving_on_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set `stop`, if this is the main thread: no other may handle them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def leave(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and not is_repeat():
            os._exit(128 + number)  # the user insists
        obeyed()
        stop.set()

    before = [signal.signal(s, leave) for s in signals]
    try:
        yield
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)
