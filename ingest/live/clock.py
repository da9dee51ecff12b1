"""When a frame of a camera was: its own clock runs even, arrivals jitter, and both may jump."""

from typing import Literal

_RESYNC_NS = 60_000_000_000

Times = Literal["own", "counted", "arrival"]
"""What a source says of when its frames were: its own times; their rate alone; or nothing."""


class SourceClock:
    """A camera's own times, laid on ours where it connects and wherever they differ by a minute.

    Times that step back are laid again as well, so that the result keeps growing. Where frames are
    only counted, none was before it came: a source may send fewer than its header says.
    """

    def __init__(self) -> None:
        self._times: Times = "own"
        self._began_ns: int | None = None
        self._offset_ns: int | None = None
        self._source_ns: int | None = None
        self.has_jumped = False
        """Whether the latest time was laid again, so that it does not continue the one before."""

    def connected(self, times: Times = "own") -> None:
        """Lay the next time again: the camera may have restarted, and time has passed."""
        self._times = times
        self._offset_ns = self._source_ns = None

    def since_began(self, source_ns: int | None, now_ns: int) -> int | None:
        """Time since the first frame, for one that arrives now; arrivals jitter, sources do not.

        None for a frame without a time of a source that has given others: it may have arrived late,
        and its neighbours say better when it was.
        """
        if self._began_ns is None:
            self._began_ns = now_ns
        elapsed_ns = now_ns - self._began_ns
        self.has_jumped = False
        if self._times == "arrival":
            return elapsed_ns
        if source_ns is None:
            return elapsed_ns if self._offset_ns is None else None
        steps_back = self._source_ns is not None and source_ns < self._source_ns
        self._source_ns = source_ns
        if (
            self._offset_ns is None
            or steps_back
            or abs(source_ns + self._offset_ns - elapsed_ns) > _RESYNC_NS
        ):
            self.has_jumped = True
            self._offset_ns = elapsed_ns - source_ns
        if self._times == "counted":
            self._offset_ns = max(self._offset_ns, elapsed_ns - source_ns)
        return source_ns + self._offset_ns
