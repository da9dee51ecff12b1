"""Whether frames come at a steady rate, so that a longer step between two of them is a hole.

A source is steady where at least 90% of the steps looked at are within 20% of the usual one, their
median. There a step of more than 1.5 usual ones means that frames are missing. Footage of a
variable rate has no usual step, and only a jump of a second or more counts as a hole in it.
"""

from collections import deque
from collections.abc import Iterable
from statistics import median

_STEADY_SHARE = 0.9
_TOLERANCE = 0.2
_HOLE_STEPS = 1.5
_FEWEST_STEPS = 16
_WINDOW_STEPS = 64
_ROUNDING_NS = 1_000_000  # Matroska writes milliseconds, which matters from 200 frames a second


class Pace:
    """The usual step of a source: from steps seen before, or learnt from the latest ones.

    What was learnt depends on where one begins, so a file is given its steps: it must come out the
    same wherever a pass through it begins. A live source, which has no other pass, `learns`.
    """

    def __init__(self, steps_ns: Iterable[int] = (), *, learns: bool = False) -> None:
        self._learns = learns
        self._steps_ns = deque(steps_ns, maxlen=_WINDOW_STEPS if learns else None)
        self.usual_ns = _usual(self._steps_ns)
        """Time between two frames in nanoseconds; None where it varies or is not known yet."""

    def observe(self, step_ns: int) -> None:
        """Note the time between two frames, if this pace learns."""
        if self._learns:
            self._steps_ns.append(step_ns)
            self.usual_ns = _usual(self._steps_ns)

    def is_hole(self, step_ns: int) -> bool:
        """Whether frames are missing within a step."""
        return self.usual_ns is not None and step_ns > _HOLE_STEPS * self.usual_ns


def _usual(steps_ns: deque[int]) -> int | None:
    if len(steps_ns) < _FEWEST_STEPS:
        return None
    usual = median(steps_ns)
    near = max(_TOLERANCE * usual, min(_ROUNDING_NS, 0.4 * usual))
    steady = sum(abs(step - usual) <= near for step in steps_ns)
    return round(usual) if steady >= _STEADY_SHARE * len(steps_ns) else None
