"""Whether frames come at a steady rate, so that a longer step between two of them is a hole.

A source is steady where at least 90% of the steps looked at are within 20% of the usual one, their
median. There a step of more than 1.5 usual ones means that frames are missing, unless the steps
before it were as long: then the rate has changed. Footage of a variable rate has no usual step, and
no holes.

Where one step or a hundredth of them is not like the others, nothing leaves frames out on purpose,
and a hole is a loss.
"""

from collections import deque
from collections.abc import Iterable
from statistics import median

_STEADY_SHARE = 0.9
_UNEVEN_SHARE = 0.01
_TOLERANCE = 0.2
_HOLE_STEPS = 1.5
_FEWEST_STEPS = 16
_WINDOW_STEPS = 64
_CHANGED_STEPS = 4  # so many steps of a new length are a new rate
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
        self.tells_loss = False
        """Whether a hole is a loss. A live source loses packets more often than it leaves out
        frames, so there it is one as soon as the rate is steady."""
        self._judge()

    def observe(self, step_ns: int) -> None:
        """Note the time between two frames, if this pace learns."""
        if self.learns:
            self._steps_ns.append(step_ns)
            self._judge()

    def _judge(self) -> None:
        enough = len(self._steps_ns) >= _FEWEST_STEPS
        usual = round(median(self._steps_ns)) if enough else 0
        alike = sum(_is_alike(step, usual) for step in self._steps_ns)
        self.usual_ns = None
        if usual and alike >= _STEADY_SHARE * len(self._steps_ns):
            self.usual_ns = usual
        is_even = len(self._steps_ns) - alike <= max(1, _UNEVEN_SHARE * len(self._steps_ns))
        self.tells_loss = self.usual_ns is not None and (self.learns or is_even)


class Steps:
    """Follows one sequence of times and says which steps are holes."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._latest_ns: deque[int] = deque(maxlen=_CHANGED_STEPS)

    def is_hole(self, step_ns: int) -> bool:
        """Whether frames are missing within the next step."""
        usual_ns = self._pace.usual_ns
        is_longer = usual_ns is not None and step_ns > _HOLE_STEPS * usual_ns
        has_changed = len(self._latest_ns) == _CHANGED_STEPS and all(
            _is_alike(step, step_ns) for step in self._latest_ns
        )
        self._latest_ns.append(step_ns)
        return is_longer and not has_changed


def _is_alike(step_ns: int, usual_ns: int) -> bool:
    near = max(_TOLERANCE * usual_ns, min(_ROUNDING_NS, 0.4 * usual_ns))
    return abs(step_ns - usual_ns) <= near
