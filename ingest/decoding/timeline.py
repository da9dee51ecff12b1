"""Which decoded frames are kept, at what time, and where the footage breaks.

decoded time  ──▶ strictly growing time in ns ──▶ kept | duplicate | resampled
                          └─▶ gap: after corrupt packets, dropped frames, holes, jumps of the clock

A step is a jump where it takes over a second and over ten usual intervals, and a hole where the
source is steady (see `ingest.decoding.pace`) and frames are missing within it.
"""

import math
from collections import Counter
from dataclasses import dataclass

from ingest.decoding.pace import Pace, Steps
from ingest.store.records import Counters

_JUMP_NS = 1_000_000_000
_JUMP_INTERVALS = 10
_TICK_TOLERANCE = 0.1  # of a tick: containers round times, and 66 ms is meant as 66.7 ms
_UNKNOWN_INTERVAL_NS = 40_000_000
_LEAST_STEP_NS = 1_000  # where a time that was missing came out too late


@dataclass(frozen=True, slots=True)
class Placed:
    """A frame that is kept."""

    pts_ns: int
    gap: bool


class Timeline:
    """Follows one pass through a source and counts what becomes of each frame."""

    def __init__(
        self,
        *,
        interval_ns: int | None,
        fps: float | None = None,
        from_pts_ns: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        """`interval_ns` is the usual time between frames, those before `from_pts_ns` are run-in.

        Without a `pace` only jumps leave a gap.
        """
        self._interval_ns = interval_ns
        self._fps = fps
        self._from_pts_ns = from_pts_ns
        self.pace = pace or Pace()
        """Whether frames come at a steady rate."""
        self._steps = Steps(self.pace)
        self._source_ns: int | None = None
        self._known_ns: int | None = None
        self._shift_ns = 0
        self._last_ns: int | None = None
        self._broken = True
        self._counts: Counter[str] = Counter()

    @property
    def counters(self) -> Counters:
        """What became of the frames so far."""
        return Counters(**self._counts)

    def corrupt_packet(self) -> None:
        """Note a packet that did not decode: footage is missing here."""
        self._broken = True
        self._count(corrupt_packets=1)

    def drop(self, source_ns: int | None) -> None:
        """Note a frame that is not to be trusted, and so is not decoded, or not kept."""
        if self._from_pts_ns is None or source_ns is None or source_ns >= self._from_pts_ns:
            self._count(decoded=1, dropped=1)

    def break_off(self) -> None:
        """Note that the next frame does not continue the last one."""
        self._broken = True

    def place(self, source_ns: int | None) -> Placed | None:
        """Decide on the next decoded frame: where it is kept, or None."""
        if source_ns is not None and source_ns == self._known_ns:
            self._count(decoded=1, duplicate=1)
            return None
        before, now = self._last_ns, self._advance(source_ns)
        if self._from_pts_ns is not None and now < self._from_pts_ns:
            self._broken = False
            self._counts.clear()
            return None
        if not self._is_due(before, now):
            self._count(decoded=1, resampled=1)
            return None
        gap = self._broken or not self._counts["stored"]
        self._broken = False
        self._count(decoded=1, stored=1, gaps=int(gap))
        return Placed(now, gap)

    def _after_last(self) -> int:
        if self._source_ns is None:
            return 0
        return self._source_ns + (self._interval_ns or _UNKNOWN_INTERVAL_NS)

    def _advance(self, source_ns: int | None) -> int:
        """Move the clock on; where the source's own goes backwards, carry on behind the last.

        Frames without a time are placed where they should be, which says nothing about the others.
        """
        if source_ns is None:
            self._source_ns = self._after_last()
        else:
            if self._known_ns is not None and source_ns < self._known_ns:
                self._shift_ns += self._after_last() - source_ns
                self._broken = True
            self._source_ns = self._known_ns = source_ns
        now = self._source_ns + self._shift_ns
        if self._last_ns is not None:
            now = max(now, self._last_ns + _LEAST_STEP_NS)
            step_ns = now - self._last_ns
            if self._steps.is_hole(step_ns) or step_ns > self._longest_step_ns():
                self._broken = True
            self.pace.observe(step_ns)
        self._last_ns = now
        return now

    def _longest_step_ns(self) -> int:
        return max(_JUMP_NS, _JUMP_INTERVALS * (self._interval_ns or 0))

    def _is_due(self, before_ns: int | None, now_ns: int) -> bool:
        """Whether a tick of `fps` lies between two decoded frames; needs no earlier history."""
        if self._fps is None or before_ns is None:
            return True
        return self._tick(now_ns) > self._tick(before_ns)

    def _tick(self, time_ns: int) -> int:
        return math.floor(time_ns * (self._fps or 0) / 1e9 + _TICK_TOLERANCE)

    def _count(self, **more: int) -> None:
        self._counts.update(more)
