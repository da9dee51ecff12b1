"""A TCP relay that misbehaves when told to: resets, cuts within a message, flips bits, delays."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

CHUNK = 1 << 16
Towards = Literal["trainer", "server"]


class Relay:
    """Passes bytes between trainers and a server on this machine."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.server_port = _free_port()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._meddle: dict[Towards, Callable[[bytes], bytes]] = {}
        self._hold_until = 0.0
        self._closing = False

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._listener.close()
        self.reset()

    def reset(self) -> None:
        """Reset every connection: what is under way is lost."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for end in pair:
                _reset(end)

    def cut(self, towards: Towards = "trainer") -> None:
        """Pass half of the next bytes that go ``towards`` one side on, and reset."""
        self._meddle[towards] = self._cut_now

    def flip(self, where: float, towards: Towards = "trainer") -> None:
        """Flip a bit of the next bytes that go ``towards`` one side, at this share of them."""

        def flipped(data: bytes) -> bytes:
            at = int(where * len(data))
            return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

        self._meddle[towards] = flipped

    def delay(self, seconds: float) -> None:
        """Pass nothing on for so long."""
        self._hold_until = time.monotonic() + seconds

    def _cut_now(self, data: bytes) -> bytes:
        threading.Timer(0.01, self.reset).start()
        return data[: len(data) // 2]

    def _accept(self) -> None:
        while not self._closing:
            try:
                front, _ = self._listener.accept()
            except OSError:
                return
            try:
                back = socket.create_connection(("127.0.0.1", self.server_port), timeout=5.0)
            except OSError:
                front.close()  # as if there were no server
                continue
            back.settimeout(None)
            pair = (front, back)
            with self._lock:
                self._pairs.add(pair)
            ways: tuple[tuple[socket.socket, socket.socket, Towards], ...] = (
                (front, back, "server"),
                (back, front, "trainer"),
            )
            for source, sink, towards in ways:
                threading.Thread(
                    target=self._pump, args=(source, sink, pair, towards), daemon=True
                ).start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        pair: tuple[socket.socket, socket.socket],
        towards: Towards,
    ) -> None:
        try:
            while data := source.recv(CHUNK):
                while (left := self._hold_until - time.monotonic()) > 0:
                    time.sleep(min(left, 0.05))
                if change := self._meddle.pop(towards, None):
                    data = change(data)
                sink.sendall(data)
        except OSError:
            pass  # one end is gone, so the other goes too
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            _reset(end)


def _reset(end: socket.socket) -> None:
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already
    end.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
