"""decord in a separate process, so that only that process hangs when decord does.

    DecordProcess ── index of a frame ──▶ python -m ingest.video.decord_process PATH WIDTH HEIGHT
                  ◀─ 0 and its pixels, or 1 and what is wrong ──

decord holds the lock of Python while it decodes, and some files make it wait for frames that never
come: no thread could then end it. The process leaves when its stdin ends, and so also when its
parent is killed; where it hangs, a watchdog that needs no such lock ends it soon after.
"""

import faulthandler
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from ingest.errors import SourceStopped, VideoError
from ingest.python_module import module_command, module_environment

OPEN_SECONDS = 300.0
"""How long decord may take to index a file, which it reads through."""
FRAME_SECONDS = 60.0
"""How long it may take for a frame; from a distant key frame it decodes hundreds."""

LEAVE_SECONDS = 5.0
"""How long a killed process is waited for, and how long it outlives a parent while it hangs."""

_POLL_SECONDS = 0.1

_NUMBER = struct.Struct("<q")
_GOOD, _BAD = b"\0", b"\1"


class DecordProcess:
    """`decord.VideoReader` of a file, in another process. Raises VideoError as it is made.

    Waiting for it ends with SourceStopped when it `should_stop`.
    """

    def __init__(
        self,
        path: str,
        *,
        width: int,
        height: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._path, self._shape = path, (height, width, 3)
        self._should_stop = should_stop
        self._process = subprocess.Popen(
            module_command(__spec__.name, path, str(width), str(height)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # FFmpeg's chatter, which decord cannot be kept from
            env=module_environment(),
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self._process.stdout is not None
        self._poll = select.poll()
        self._poll.register(self._process.stdout.fileno(), select.POLLIN)
        try:
            self._frames = self._number("open it", time.monotonic() + OPEN_SECONDS)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """How many frames decord counts."""
        return self._frames

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def frame(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decode a frame. Raises VideoError if decord cannot, or not within FRAME_SECONDS."""
        doing, deadline = f"decode frame {index}", time.monotonic() + FRAME_SECONDS
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_NUMBER.pack(index))
            self._process.stdin.flush()
        except OSError as error:  # the process has ended
            raise self._failed(doing, f"its process is gone: {error.strerror}") from error
        size = self._number(doing, deadline)
        if size != np.prod(self._shape):
            raise self._failed(doing, f"{size} bytes came in place of a frame {self._shape}")
        return np.frombuffer(self._receive(size, doing, deadline), np.uint8).reshape(self._shape)

    def close(self) -> None:
        """End the process. May be called more than once."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # a disk that hangs keeps it
            self._process.wait(LEAVE_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # a request that it no longer took

    def _number(self, doing: str, deadline: float) -> int:
        status, raw = self._receive(1, doing, deadline), self._receive(8, doing, deadline)
        (number,) = _NUMBER.unpack(raw)
        if status == _BAD:
            raise self._failed(doing, self._receive(number, doing, deadline).decode())
        return number

    def _receive(self, size: int, doing: str, deadline: float) -> bytearray:
        assert self._process.stdout is not None
        received = bytearray(size)
        done = 0
        while done < size:
            if self._should_stop():
                raise SourceStopped(self._path)
            left = deadline - time.monotonic()
            if left > 0 and not self._poll.poll(min(left, _POLL_SECONDS) * 1000):
                continue
            if left <= 0:
                self._process.kill()
                raise self._failed(doing, "it hangs")
            came = os.readv(self._process.stdout.fileno(), [memoryview(received)[done:]])
            if not came:
                raise self._failed(doing, f"its process ended with {self._process.wait()}")
            done += came
        return received

    def _failed(self, doing: str, why: str) -> VideoError:
        return VideoError(f"{self._path}: decord cannot {doing} ({why}); use --reader pyav")


def _serve(path: str, width: int, height: int) -> None:
    """In the process: answer one request after another until there will be no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what decord prints must not pass for an answer
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        with _watched(OPEN_SECONDS):
            decoder = decord.VideoReader(path, width=width, height=height)
    except Exception as error:  # decord has one class of errors, and it is made at run time
        return _answer(answers, _BAD, _first_line(error))
    answers.write(_GOOD + _NUMBER.pack(len(decoder)))
    answers.flush()
    while request := sys.stdin.buffer.read(_NUMBER.size):
        try:
            with _watched(FRAME_SECONDS):
                image = decoder[_NUMBER.unpack(request)[0]].asnumpy()
        except Exception as error:
            _answer(answers, _BAD, _first_line(error))
        else:
            _answer(answers, _GOOD, image.tobytes())


@contextmanager
def _watched(seconds: float) -> Iterator[None]:
    """End this process where what is done takes longer than the parent waits, if that is there."""
    faulthandler.dump_traceback_later(seconds + LEAVE_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _answer(answers: BinaryIO, status: bytes, data: bytes) -> None:
    answers.write(status + _NUMBER.pack(len(data)))
    answers.write(data)
    answers.flush()


def _first_line(error: Exception) -> bytes:
    return str(error).strip().partition("\n")[0].encode()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
