"""Random access to a server's recordings: a FrameSource over a socket of its own."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import zmq

from ingest.errors import ReleasedError
from ingest.frame import Frames
from online.clips.holdout import RecordingSummary
from online.errors import MessageDamaged, ServerError, ServerSilent, WireError
from online.queue import messages
from online.queue.connection import CHECK_SECONDS
from online.queue.keys import TrainerKeys
from online.queue.sockets import Dealer

log = logging.getLogger(__name__)

MAX_LENGTH = 1 << 16
"""Frames asked for at once; the server may send fewer, and is asked again."""
MAX_MESSAGES = 4
"""Messages that ZeroMQ keeps before they are received; one is expected."""


class RemoteStore:
    """Sends one request at a time and waits for its reply; may be shared by threads."""

    def __init__(
        self,
        context: zmq.Context,
        address: str,
        *,
        keys: TrainerKeys | None,
        timeout_seconds: float,
        checksum: bool,
    ) -> None:
        self._context = context
        self._address = address
        self._keys = keys
        self._timeout_seconds = timeout_seconds
        self._checksum = checksum
        self._requests = itertools.count()
        self._lock = threading.Lock()
        self._dealer: Dealer | None = None

    def recordings(self) -> list[RecordingSummary]:
        """What there is now, sorted by name.

        Raises ServerError: the server cannot read its store, or does not let this trainer in;
        ServerSilent if it does not answer.
        """
        reply, _ = self._ask(messages.List)
        if not isinstance(reply, messages.Listed):
            raise WireError(f"{self._address}: answered a List with {type(reply).__name__}")
        return reply.recordings

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length, in as many messages as their size needs.

        Raises ServerError: no such recording or frames, or they are damaged; ServerSilent if the
        server does not answer; ReleasedError: frames were deleted; WireError: what arrives does
        not hold together.
        """
        parts: list[Frames] = []
        done = 0
        while done < length or not parts:
            parts.append(self._fetch_some(recording, start + done, length - done, masks))
            done += len(parts[-1])
        return parts[0] if len(parts) == 1 else Frames.join(parts)

    def close(self) -> None:
        """Close the socket."""
        if self._dealer is not None:
            self._dealer.close()
            self._dealer = None

    def _fetch_some(self, recording: str, start: int, length: int, masks: bool) -> Frames:
        if start < 0 or length < 1:
            raise ServerError(f"{recording}: frames {start}..{start + length} do not exist")

        def ask(request: int) -> messages.Fetch:
            return messages.Fetch(
                request=request,
                recording=recording,
                start=start,
                length=min(length, MAX_LENGTH),
                masks=masks,
                checksum=self._checksum,
            )

        frames = self._undamaged(ask)
        if len(frames) > length:
            raise WireError(f"{self._address}: sent {len(frames)} frames, {length} were asked for")
        return frames

    def _undamaged(self, ask: Callable[[int], messages.Fetch]) -> Frames:
        tried = 0
        while True:
            reply, buffers = self._ask(ask)
            if not isinstance(reply, messages.Fetched):
                raise WireError(f"{self._address}: answered a Fetch with {type(reply).__name__}")
            try:
                return messages.unpack_frames(reply.frames, buffers)
            except MessageDamaged:
                tried += 1
                if tried == messages.MAX_DAMAGED:
                    raise

    def _ask(
        self, make: Callable[[int], messages.ToServer]
    ) -> tuple[messages.ToTrainer, list[memoryview]]:
        """Send a request and wait for its reply, asking again with growing patience."""
        with self._lock:
            deadline = time.monotonic() + self._timeout_seconds
            patience = messages.SILENCE_SECONDS
            state, warned, damaged = "", False, 0
            while (left := deadline - time.monotonic()) > 0:
                request = next(self._requests)
                dealer = self._connected()
                # taken also while it connects; where libzmq has turned away from another program
                # a send would wait forever, and `_await` reports it instead
                with suppress(zmq.Again):
                    dealer.socket.send(messages.encode(make(request)), zmq.NOBLOCK)
                until = time.monotonic() + min(patience, left)
                try:
                    answer = self._await(dealer, request, until)
                except MessageDamaged as error:
                    damaged += 1
                    if damaged == messages.MAX_DAMAGED:
                        raise MessageDamaged(f"{self._address}: {error}") from error
                    answer = None  # it is asked for again
                if answer is not None:
                    return answer
                is_late = time.monotonic() >= until
                if is_late and not warned and left > patience:
                    warned = True
                    log.warning(
                        "%s: no answer for %g s, waiting for it for %g s in all: %s",
                        *(self._address, patience, self._timeout_seconds, dealer.state),
                    )
                if not state or left > patience or not dealer.is_unsure:
                    state = dealer.state
                self.close()  # drops what arrives too late
                patience = min(2 * patience, messages.MAX_SILENCE_SECONDS)
        raise ServerSilent(f"{self._address}: no answer in {self._timeout_seconds:g} s: {state}")

    def _await(
        self, dealer: Dealer, request: int, until: float
    ) -> tuple[messages.ToTrainer, list[memoryview]] | None:
        poller = zmq.Poller()
        poller.register(dealer.socket, zmq.POLLIN)
        poller.register(dealer.monitor, zmq.POLLIN)
        while (left := until - time.monotonic()) > 0:
            wait = min(left, CHECK_SECONDS)
            if dealer.socket not in dict(poller.poll(round(1000 * wait) + 1)):
                dealer.check()
                continue
            header, *buffers = dealer.socket.recv_multipart(copy=False)
            reply = dealer.decode(header)
            if isinstance(reply, messages.Refused) and reply.request in (request, None):
                raise (ReleasedError if reply.released else ServerError)(reply.message)
            if isinstance(reply, messages.Listed | messages.Fetched) and reply.request == request:
                return reply, [buffer.buffer for buffer in buffers]
        return None

    def _connected(self) -> Dealer:
        if self._dealer is None:
            self._dealer = Dealer(
                self._context,
                self._address,
                self._keys,
                max_bytes=messages.MAX_FRAME_BYTES,
                max_messages=MAX_MESSAGES,
            )
        return self._dealer
