"""Peers that say what a test makes up, over real sockets: a trainer, and a server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import zmq

from ingest.frame import Frames
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor, Extent
from online.clips.request import ClipRequest
from online.queue import messages
from online.queue.sockets import limited_socket

WANT = ClipRequest(clip=ClipConfig(clip_length=4, frame_stride=2), max_epochs=1)
HELLO = messages.Hello(session="0123456789", credit=20_000, request=ClipRequest(clip=WANT.clip))
EXTENT = Extent(150, True)
REQUESTS = [
    HELLO,
    msgspec.structs.replace(
        HELLO, cursor=Cursor(index=3, base={"a": EXTENT}, extents={"a": EXTENT})
    ),
    messages.Credit(HELLO.session, 40_000),
    messages.Alive(HELLO.session),
    messages.Bye(HELLO.session),
    messages.List(1),
    messages.Fetch(request=2, recording="a", start=5, length=20, checksum=True),
]
BOUND = 20.0
MEGABYTE = 1 << 20


@contextmanager
def peer_of(address: str, *, keeps: int = 1000) -> Iterator[zmq.Socket]:
    """A socket that sends given bytes, and does not read."""
    context = zmq.Context()
    try:
        socket = limited_socket(context, zmq.DEALER, max_bytes=MEGABYTE, max_messages=keeps)
        socket.connect(address)
        yield socket
    finally:
        context.destroy(linger=0)


def settled(socket: zmq.Socket, request: int) -> None:
    """Wait until all that was sent before is dealt with; asked again, as a client does."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        socket.send(messages.encode(messages.List(request)))
        while socket.poll(500):
            message = messages.decode_reply(socket.recv_multipart()[0])
            if isinstance(message, messages.Listed) and message.request == request:
                return
    raise AssertionError("the server does not answer")


class Hostile:
    """A server that answers whatever is asked with parts that a function makes up."""

    def __init__(
        self, address: str, answers: Callable[[messages.ToServer], list[list[bytes]]]
    ) -> None:
        self.sent = 0
        self._answers = answers
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._router = limited_socket(
            self._context, zmq.ROUTER, max_bytes=MEGABYTE, max_messages=1000
        )
        self._router.bind(address)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Hostile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(BOUND)
        self._context.destroy(linger=0)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._router.poll(20):
                identity, part = self._router.recv_multipart()
                for parts in self._answers(messages.decode_request(part)):
                    self._router.send_multipart([identity, *parts])
                    self.sent += 1


FRAMES = Frames(
    images=np.zeros((8, 8, 8, 3), np.uint8),
    pts_ns=np.arange(8),
    gap=np.zeros(8, np.bool_),
)


def clip_messages(session: str, count: int = 3) -> list[tuple[Any, list[bytes]]]:
    """An epoch, some clips, its end, and what else may come; with their buffers."""
    header, buffers = messages.pack_frames(FRAMES, checksum=False)
    clips = [
        messages.ClipHeader(
            session=session, sequence=1 + i, index=i, recording="a", start=4 * i, frames=header
        )
        for i in range(count)
    ]
    start = Cursor(extents={"a": EXTENT})
    epoch = messages.Epoch(session=session, sequence=0, cursor=start, clips=count)
    return [
        (epoch, []),
        *((clip, [b.tobytes() for b in buffers]) for clip in clips),
        (messages.End(session, count + 1), []),
        (messages.Alive(session), []),
        (messages.Lost("9876543210"), []),
        (messages.Refused(message="no", session=session), []),
    ]
