"""A TCP relay that misbehaves on request: cuts, flips bits, delays, lets connections overtake."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, get_args

CHUNK = 1 << 16
Towards = Literal["trainer", "server"]


@dataclass(eq=False)
class _Pair:
    """A trainer's connection, and the one to the server that continues it."""

    front: socket.socket
    back: socket.socket
    held: bytearray | None = None
    """What the server gets only once a newer connection has begun; None holds nothing back."""

    def reset(self) -> None:
        for end in (self.front, self.back):
            _reset(end)


class Relay:
    """Passes bytes between trainers and a server on this machine."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.server_port = _free_port()
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._meddle: dict[Towards, Callable[[bytes], bytes]] = {}
        self._hold_until = 0.0
        self._overtaken_by = 0.0
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
            pair.reset()

    def cut(self, towards: Towards = "trainer") -> None:
        """Pass half of the next bytes that go `towards` one side on, and reset."""
        self._meddle[towards] = self._cut_now

    def flip(self, where: float, towards: Towards = "trainer") -> None:
        """Flip a bit of the next bytes that go `towards` one side, at this share of them."""

        def flipped(data: bytes) -> bytes:
            at = int(where * len(data))
            return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

        self._meddle[towards] = flipped

    def delay(self, seconds: float) -> None:
        """Pass nothing on for so long."""
        self._hold_until = time.monotonic() + seconds

    def overtake(self, seconds: float) -> None:
        """Let the server hear what trainers say from now on so long after they connect again."""
        self._overtaken_by = seconds
        with self._lock:
            for pair in self._pairs:
                pair.held = bytearray()

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
            pair = _Pair(front, back)
            with self._lock:
                older = [pair for pair in self._pairs if pair.held is not None]
                self._pairs.append(pair)
            if older:
                threading.Timer(self._overtaken_by, self._let_go, (older,)).start()
            for towards in get_args(Towards):
                threading.Thread(target=self._pump, args=(pair, towards), daemon=True).start()

    def _pump(self, pair: _Pair, towards: Towards) -> None:
        source = pair.front if towards == "server" else pair.back
        try:
            while data := source.recv(CHUNK):
                while (left := self._hold_until - time.monotonic()) > 0:
                    time.sleep(min(left, 0.05))
                if change := self._meddle.pop(towards, None):
                    data = change(data)
                self._pass_on(pair, towards, data)
        except OSError:
            pass  # one end is gone, so the other goes too
        if pair.held is None:  # otherwise there is something left to say to the server
            self._drop(pair)

    def _pass_on(self, pair: _Pair, towards: Towards, data: bytes) -> None:
        with self._lock:
            if pair.held is not None and towards == "server":
                pair.held += data
                return
        if pair.held is None:
            (pair.back if towards == "server" else pair.front).sendall(data)
        else:
            with suppress(OSError):  # the trainer may have turned away, the server stays
                pair.front.sendall(data)

    def _let_go(self, older: Sequence[_Pair]) -> None:
        """Tell the server what was held back, the newest first, and end these connections."""
        for pair in reversed(older):
            with self._lock:
                held, pair.held = pair.held, None
            with suppress(OSError):
                pair.back.sendall(held or b"")
        time.sleep(0.5)  # what a reset overtakes is lost
        for pair in older:
            self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        with self._lock, suppress(ValueError):
            self._pairs.remove(pair)
        pair.reset()


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
