"""The server: one ROUTER socket, one stream per trainer, clips for as long as there is credit.

    trainer ── Hello(what, credit) ──▶ ┌────────┐ ── Epoch, Clip, Clip, ... ──▶ trainer
            ── Credit(byte offset) ──▶ │ server │ ── Alive every second ──────▶
            ── List, Fetch ──────────▶ └────────┘ ── Listed, Fetched ──────────▶

The credit that the trainer grants bounds the queues of both ends. One thread does everything, and
it never waits for a trainer.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import zmq

from ingest.errors import IngestError, ReleasedError
from ingest.store.protocols import Store
from online.clips.catalog import StoreCatalog
from online.errors import MessageDamaged, ServerError, WireError
from online.queue import messages
from online.queue.address import bound
from online.queue.keys import ServerKeys
from online.queue.sockets import Outbox, limited_socket
from online.queue.stream import ServeConfig, Stream

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""Longest wait for a message; bounds how long a signal takes to be obeyed."""
RETRY_SECONDS = 0.002
"""Pause while a trainer's queue is full though it has granted credit."""
MESSAGES_PER_TURN = 64
MAX_REQUEST_BYTES = 4 << 20
MAX_REQUESTS = 64
"""Requests of one trainer that ZeroMQ keeps before they are read."""
MAX_SESSIONS = 256
MAX_PLANNED_CLIPS = 1 << 23
"""In the plans of all sessions; each costs some 150 bytes."""
REPORT_SECONDS = 1.0


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
    """Sessions closed because their trainer said nothing for 3 s: it hangs."""


@dataclass(slots=True, eq=False)
class _Session:
    stream: Stream
    heard_at: float
    heartbeat_at: float = 0.0  # so that the first one goes out at once


class Server:
    """Answers trainers over a bound ROUTER socket; `step` does one round of work."""

    def __init__(self, catalog: StoreCatalog, socket: zmq.Socket, config: ServeConfig) -> None:
        self._catalog = catalog
        self._socket = socket
        self._config = config
        self._outbox = Outbox(socket)
        self._sessions: dict[bytes, _Session] = {}
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
        """Read what has come, send each trainer at most one message.

        Returns how long the next step may wait for a message.
        """
        self._all_read = not self._socket.poll(round(wait_seconds * 1000)) or self._receive()
        now = time.monotonic()
        return min((self._advance(i, now) for i in list(self._sessions)), default=POLL_SECONDS)

    def _receive(self) -> bool:
        """Read until there is nothing more, which is True, or until a request has taken time."""
        for _ in range(MESSAGES_PER_TURN):
            try:
                identity, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return True
            try:
                if len(parts) != 1:
                    raise WireError(f"a request has one part, got {len(parts)}")
                if self._answer(identity, messages.decode_request(parts[0])):
                    return False  # others wait for their clips
            except MessageDamaged:
                self._totals.rejected += 1
                if session := self._lose(identity):  # it will send its Hello again
                    self._send(identity, messages.Lost(session.stream.want.session))
            except WireError as error:
                self._totals.rejected += 1
                log.warning("rejected a message: %s", error)
                self._send(identity, messages.Refused(message=str(error)))
        return False

    def _answer(self, identity: bytes, message: messages.ToServer) -> bool:
        """Do what a message asks; returns whether that may have taken time."""
        match message:
            case messages.Hello():
                self._open(identity, message)
                return True
            case messages.List() | messages.Fetch():
                return self._reply(identity, message)
            case messages.Credit() | messages.Alive() | messages.Bye():
                self._update(identity, message)
                return False

    def _open(self, identity: bytes, want: messages.Hello) -> None:
        self._sessions.pop(identity, None)
        try:
            self._check_room_for_session()
            stream = Stream(self._catalog, want, self._config)
        except (ServerError, IngestError) as error:
            self._refuse(identity, error, session=want.session)
            return
        self._sessions[identity] = _Session(stream, heard_at=time.monotonic())
        self._totals.sessions += 1

    def _check_room_for_session(self) -> None:
        """A session costs its plan and one clip that waits for credit, so there is a limit."""
        planned = sum(session.stream.planned_clips for session in self._sessions.values())
        if len(self._sessions) >= MAX_SESSIONS or planned >= MAX_PLANNED_CLIPS:
            raise ServerError(
                f"{self._catalog.store.location}: is already served to {len(self._sessions)} "
                f"trainers, with {planned} planned clips; that is a server's limit, start another"
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
            del self._sessions[identity]

    def _reply(self, identity: bytes, message: messages.List | messages.Fetch) -> bool:
        if not self._outbox.has_room(identity):
            # it does not read the replies it asked for; once it does, it will ask again
            self._totals.refused += 1
            return False
        try:
            if isinstance(message, messages.List):
                found = self._catalog.recordings()
                self._send(identity, messages.Listed(message.request, found))
            else:
                self._fetch(identity, message)
        except (IngestError, IndexError, ServerError) as error:
            self._refuse(identity, error, request=message.request)
        return True

    def _fetch(self, identity: bytes, message: messages.Fetch) -> None:
        if message.recording not in self._catalog.names():
            raise ServerError(f"{self._catalog.store.location}: no recording {message.recording!r}")
        commit = self._catalog.commit(message.recording)
        fitting = max(1, messages.MAX_REPLY_BYTES // (commit.height * commit.width * 4))
        frames = self._catalog.fetch(
            message.recording,
            message.start,
            min(message.length, fitting),
            masks=message.masks,
        )
        header, buffers = messages.pack_frames(frames, checksum=message.checksum)
        self._send(identity, messages.Fetched(message.request, header), buffers)
        self._totals.fetches += 1

    def _advance(self, identity: bytes, now: float) -> float:
        """Send a session its next message, or a heartbeat; returns how long it can wait."""
        session = self._sessions[identity]
        if self._all_read and now - session.heard_at > messages.SILENCE_SECONDS:
            # it hangs, or is gone; should it wake up, it hears that its session is lost
            self._lose(identity)
            self._totals.silent += 1
            return POLL_SECONDS
        if now - session.heartbeat_at >= messages.HEARTBEAT_SECONDS:
            session.heartbeat_at = now
            recorded = session.stream.recorded()
            self._send(identity, messages.Alive(session.stream.want.session, recorded))
            return 0.0
        session.stream.is_finishing = self._is_finishing
        try:
            parts = session.stream.next_message(now)
        except (ServerError, IngestError, IndexError) as error:
            del self._sessions[identity]
            self._refuse(identity, error, session=session.stream.want.session)
            return 0.0
        if parts is None:
            return POLL_SECONDS
        if not (self._outbox.has_room(identity) and self._send_parts(identity, parts)):
            return RETRY_SECONDS
        if cost := session.stream.sent():
            self._totals.clips += 1
            self._totals.clip_bytes += cost
        return 0.0

    def _lose(self, identity: bytes) -> _Session | None:
        """Forget the session of a trainer that has not left, and may be about to come back."""
        session = self._sessions.pop(identity, None)
        if session is not None:
            self._lost_at = time.monotonic()
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
            log.warning("refused: %s", error)
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


def server_socket(context: zmq.Context) -> zmq.Socket[Any]:
    """A socket for a server, not bound yet."""
    socket = limited_socket(
        context, zmq.ROUTER, max_bytes=MAX_REQUEST_BYTES, max_messages=MAX_REQUESTS
    )
    socket.router_mandatory = True  # else messages to a full or vanished peer are dropped unseen
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
    recordings, and none can be read.
    """
    stop = stop or threading.Event()
    catalog = StoreCatalog(store, holdout=config.holdout, recordings=config.recordings)
    if not catalog.names() and catalog.left_out:
        raise ServerError(
            f"{store.location}: nothing to serve: of its recordings none can be read "
            f"({', '.join(sorted(catalog.left_out)[:5])}); `setcon verify {store.location}` names "
            "the damage"
        )
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
            return _run(Server(catalog, socket, config), stop, finish, report)
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
        if report is not None and passed >= REPORT_SECONDS:
            counters = server.counters
            report(
                replace(counters, bytes_per_second=(counters.clip_bytes - reported_bytes) / passed)
            )
            reported_at, reported_bytes = time.monotonic(), counters.clip_bytes
    return server.counters


@contextmanager
def _leaving_on_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set `stop`, if this is the main thread: no other may handle them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, lambda *_: stop.set()) for s in signals]
    try:
        yield
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)
