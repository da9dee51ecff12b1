"""Which decoded frames are kept, at what time, and where the footage breaks.

decoded time  ──▶ strictly growing time in ns ──▶ kept | duplicate | resampled
                          └─▶ gap: after corrupt packets, dropped frames, holes, jumps of the clock

Frames come in the order in which they are shown. So one whose time is not after that of the frame
before it, by less than a jump, bears a wrong time: it is placed a usual step after that frame. Two
pictures with one time are two frames.

A step is a jump where it takes over a second and over ten usual intervals.

A step is a hole where the source is steady and frames are missing within it. A source is steady
where at least 90% of the steps looked at are within 20% of the usual one, their median. There, a
step of more than 1.5 usual ones means that frames are missing, unless the steps before it were as
long: then the rate has changed. Footage of a variable rate has no usual step, and no holes. Until
a live source has shown its rate, the one that it declares counts.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, median

from ingest.store.records import Counters

_JUMP_NS = 1_000_000_000
_JUMP_INTERVALS = 10
_TICK_TOLERANCE = 0.1  # of a tick: containers round times, and 66 ms is meant as 66.7 ms
_UNKNOWN_INTERVAL_NS = 40_000_000
_LEAST_STEP_NS = 1_000  # where a time that was missing came out too late
_STEADY_SHARE = 0.9
_TOLERANCE = 0.2
_HOLE_STEPS = 1.5
_FEWEST_STEPS = 16
_WINDOW_STEPS = 64
_CHANGED_STEPS = 4  # this many steps of a new length are a new rate
_ROUNDING_NS = 1_000_000  # Matroska writes milliseconds, which matters from 200 frames a second


class Pace:
    """The usual step of a source: from steps seen before, or learnt from the latest ones.

    What was learnt depends on where one begins, so a file is given its steps: it must come out the
    same wherever a pass through it begins. A live source, which has no other pass, `learns`.
    """

    def __init__(self, steps_ns: Iterable[int] = (), *, learns: bool = False) -> None:
        self.learns = learns
        self._steps_ns = deque(steps_ns, maxlen=_WINDOW_STEPS if learns else None)
        self.usual_ns: int | None = None
        """Time between two frames in nanoseconds; None where it varies or is not known yet."""
        self.mean_ns: int | None = None
        """Mean time between two frames; None where it is not known yet."""
        self._judge()

    @property
    def is_known(self) -> bool:
        """Whether enough steps were seen to say which is usual, if any is."""
        return len(self._steps_ns) >= _FEWEST_STEPS

    def observe(self, step_ns: int) -> None:
        """Note the time between two frames, if this pace learns."""
        if self.learns:
            self._steps_ns.append(step_ns)
            self._judge()

    def _judge(self) -> None:
        usual = round(median(self._steps_ns)) if self.is_known else 0
        alike = sum(_is_alike(step, usual) for step in self._steps_ns)
        self.mean_ns = round(mean(self._steps_ns)) or None if self.is_known else None
        self.usual_ns = None
        if usual and alike >= _STEADY_SHARE * len(self._steps_ns):
            self.usual_ns = usual


class Steps:
    """Follows one sequence of times and says which steps are holes."""

    def __init__(self, pace: Pace, *, declared_ns: int | None = None) -> None:
        """Until the pace is known, `declared_ns` counts as the usual step."""
        self._pace = pace
        self._declared_ns = declared_ns
        self._latest_ns: deque[int] = deque(maxlen=_CHANGED_STEPS)

    def is_hole(self, step_ns: int) -> bool:
        """Whether frames are missing within the next step."""
        usual_ns = self._pace.usual_ns if self._pace.is_known else self._declared_ns
        is_longer = usual_ns is not None and step_ns > _HOLE_STEPS * usual_ns
        is_hole = is_longer and not self._has_changed_to(step_ns)
        self._latest_ns.append(step_ns)
        return is_hole

    def _has_changed_to(self, step_ns: int) -> bool:
        """Whether the latest steps are all like this one, so that it is the new rate."""
        return len(self._latest_ns) == _CHANGED_STEPS and all(
            _is_alike(step, step_ns) for step in self._latest_ns
        )


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
        self._steps = self._new_steps()
        self._known_ns: int | None = None
        self._shift_ns = 0
        self._is_wrong = False
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

    def begin_anew(self, *, interval_ns: int | None) -> None:
        """Note that the source was connected anew: what comes now may come at another rate."""
        self._interval_ns = interval_ns
        self.pace = Pace(learns=self.pace.learns)
        self._steps = self._new_steps()
        self._broken = True

    def place(self, source_ns: int | None) -> Placed | None:
        """Decide on the next decoded frame: where it is kept, or None."""
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

    def _new_steps(self) -> Steps:
        return Steps(self.pace, declared_ns=self._interval_ns if self.pace.learns else None)

    def _usual_step_ns(self) -> int:
        known = [self._interval_ns, self.pace.usual_ns, self.pace.mean_ns]
        return min((step for step in known if step), default=_UNKNOWN_INTERVAL_NS)

    def _advance(self, source_ns: int | None) -> int:
        """Move the clock on. Where the source's own stands still or steps back a little, only this
        frame's time is wrong; where it jumps back, carry on after the last.
        """
        now = self._now(source_ns)
        if self._last_ns is not None:
            step_ns = now - self._last_ns
            if self._steps.is_hole(step_ns) or step_ns > self._longest_step_ns():
                self._broken = True
            self.pace.observe(step_ns)
        self._last_ns = now
        return now

    def _now(self, source_ns: int | None) -> int:
        before, self._known_ns = self._known_ns, self._known_ns if source_ns is None else source_ns
        if self._last_ns is None:
            return source_ns or 0
        usual_ns = self._usual_step_ns()
        if source_ns is None:
            return self._last_ns + usual_ns
        advance_ns = 0 if before is None else source_ns - before
        if advance_ns <= -self._longest_step_ns():
            self._shift_ns = self._last_ns + usual_ns - source_ns
            self._broken = True
        now = source_ns + self._shift_ns
        self._is_wrong = now <= self._last_ns and (self._is_wrong or advance_ns <= 0)
        if self._is_wrong:
            return self._last_ns + (min(advance_ns, usual_ns) if advance_ns > 0 else usual_ns)
        return max(now, self._last_ns + _LEAST_STEP_NS)  # behind a time that was made up

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


def _is_alike(step_ns: int, usual_ns: int) -> bool:
    near = max(_TOLERANCE * usual_ns, min(_ROUNDING_NS, 0.4 * usual_ns))
    return abs(step_ns - usual_ns) <= near
