"""Frames on their way from a camera, which never waits, to a store, which may be slow.

camera ── put ──▶ [ oldest ... newest ] ── take ──▶ store
                      └─ dropped when it is full, and the next one is a gap
"""

import threading
from collections import deque
from dataclasses import dataclass, replace

from ingest.frame import Frame, Frames
from ingest.store.records import Counters

MAX_FRAMES = 1024
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The oldest frames that waited."""

    frames: Frames | None
    """None where none are left."""
    counters: Counters
    """What became of all frames so far, up to the last one taken."""
    last: bool
    """Whether no frame will follow."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    frame: Frame
    counters: Counters
    """The camera's, with this frame counted as stored."""


class Backlog:
    """A queue between two threads that holds a bounded number of frames, the newest ones."""

    def __init__(self, *, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._waiting: deque[_Waiting] = deque()
        self._counted = Counters()
        self._dropped = Counters()
        self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, frame: Frame | None, counters: Counters) -> None:
        """Add the newest frame, if it is one to store; `counters` include it. Never waits."""
        with self._changed:
            if self._ended:
                return
            self._counted = counters
            if frame is not None:
                self._waiting.append(_Waiting(frame, counters))
                if len(self._waiting) > self._capacity(frame):
                    self._drop_oldest()
                self._changed.notify()

    def end(self, error: BaseException | None = None, *, counters: Counters | None = None) -> None:
        """Take no more frames; those that wait can still be taken, unless there is an error.

        `counters` include what became of the source after the newest frame.
        """
        with self._changed:
            if counters is not None and not self._ended:
                self._counted = counters
            self._ended, self._error = True, self._error or error
            self._changed.notify()

    def has_frame(self, timeout_seconds: float) -> bool:
        """Whether a frame waits, or comes in time; raises what the end was given as error."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, timeout_seconds)
            self._raise_error()
            return bool(self._waiting)

    def take(self, count: int, timeout_seconds: float) -> Taken | None:
        """The `count` oldest frames, or what is left at the end; None where they come too late.

        Raises what the end was given as error.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._waiting) >= count or self._ended, timeout_seconds
            )
            self._raise_error()
            last = self._ended and len(self._waiting) < count
            if len(self._waiting) < count and not last:
                return None
            taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            counted = self._counted if last else taken[-1].counters
            counters = counted + self._dropped
        frames = Frames.stack([waiting.frame for waiting in taken]) if taken else None
        return Taken(frames, counters, last)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _capacity(self, frame: Frame) -> int:
        return max(2, min(self._max_frames, self._max_bytes // frame.image.nbytes))

    def _drop_oldest(self) -> None:
        """What was counted as stored is not, and the gap moves to the frame after it."""
        oldest, second = self._waiting.popleft(), self._waiting.popleft()
        gaps = 1 - second.frame.gap - oldest.frame.gap
        self._dropped += Counters(stored=-1, dropped=1, gaps=gaps)
        self._waiting.appendleft(replace(second, frame=replace(second.frame, gap=True)))
