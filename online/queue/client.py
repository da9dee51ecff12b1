"""The trainer's end of one server: clips with credit, and random access alongside them.

    next_clip() ◀── Receiver ◀── Connection ◀── clips     each with the cursor after it
    fetch()     ──▶ RemoteStore ──────────────▶ frames

However often either side is restarted, each clip of the plan is returned once, in order.
"""

from __future__ import annotations

import zmq

from ingest.closing import Closing
from ingest.frame import Frames
from online.clips.config import CREDIT_BYTES
from online.clips.cursor import Cursor
from online.clips.holdout import RecordingSummary
from online.clips.request import ClipRequest
from online.errors import ServerError
from online.queue import messages
from online.queue.address import check_address
from online.queue.connection import ClientCounters
from online.queue.fetch import RemoteStore
from online.queue.keys import TrainerKeys
from online.queue.receiver import Delivery, Receiver

PATIENCE_SECONDS = 120.0
"""How long nothing may come before a server is given up: it may be restarted meanwhile, and one of
a camera sends no clips in the minutes that are held out."""


class Client(Closing):
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

        `keys` let it in where a server asks for them. `recordings` and `fetch` wait for up to
        `timeout_seconds`. `checksum` says whether buffers are checked by CRC-32C; None means over
        TCP.

        Raises AddressError: the address is neither loopback TCP nor ipc, and no keys were given.
        """
        self.address = check_address(address, keyed=keys is not None)
        self.keys = keys
        self.counters = ClientCounters()
        self.checksum = address.startswith("tcp:") if checksum is None else checksum
        self._context = zmq.Context()
        self._remote = RemoteStore(
            self._context,
            self.address,
            keys=keys,
            timeout_seconds=timeout_seconds,
            checksum=self.checksum,
        )
        self._receiver: Receiver | None = None

    def recordings(self) -> list[RecordingSummary]:
        """What there is now, sorted by name; errors as in `RemoteStore`."""
        return self._remote.recordings()

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length; errors as in `RemoteStore`."""
        return self._remote.fetch(recording, start, length, masks=masks)

    @property
    def recorded(self) -> frozenset[str]:
        """What is being recorded just now; known within a second of what happens."""
        return frozenset() if self._receiver is None else self._receiver.recorded

    @property
    def has_ended(self) -> bool:
        """Whether all clips of all epochs asked for have arrived, returned or not."""
        return self._receiver is not None and self._receiver.has_ended

    def open(
        self,
        request: ClipRequest,
        *,
        cursor: Cursor | None = None,
        credit_bytes: int = CREDIT_BYTES,
        server: int = 0,
    ) -> None:
        """Ask for clips, from `cursor` on; returns at once, and may be called again.

        Up to `credit_bytes` may be under way, at least two clips. Clips carry the number `server`.
        """
        if self._receiver is not None:
            self._receiver.close()
        want = messages.Hello(  # the connection fills in session and cursor
            session="", credit=credit_bytes, request=request, checksum=self.checksum
        )
        self._receiver = Receiver(
            self._context,
            self.address,
            want,
            server=server,
            keys=self.keys,
            cursor=cursor,
            counters=self.counters,
        )

    def agree(self, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the server has made the plan that was asked for; errors as in `next_clip`.

        It refuses where a recording of the cursor was replaced, so frames fetched after this are
        those that were sent before.
        """
        if self._receiver is None:
            raise ServerError(f"{self.address}: open() must be called before a plan is agreed on")
        self._receiver.agree(timeout_seconds)

    def next_clip(self, timeout_seconds: float = 60.0) -> Delivery | None:
        """The next clip of the plan, and the cursor after it; None when all epochs are over.

        A server that hangs or is restarted is waited for, within `timeout_seconds`.

        Raises ServerError: the server refuses, or does not let this trainer in; ServerSilent if no
        clip came in time; WireError: the server is another program or version, or keeps sending
        damaged clips.
        """
        if self._receiver is None:
            raise ServerError(f"{self.address}: open() must be called before clips are asked for")
        delivery = self._receiver.take(timeout_seconds)
        if delivery is not None:
            self.counters.clips += 1
            self.counters.clip_bytes += delivery.clip.nbytes
        return delivery

    def close(self) -> None:
        """Leave the server; closing twice is allowed."""
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
        self._remote.close()
        # not term(): a signal may have come before a socket was noted, and it would wait for that
        self._context.destroy(linger=0)
