"""Which packet a decoded frame is of, and whose frames have not come."""

from collections import deque
from typing import NamedTuple

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

_HELD_BACK = {"av1": 0, "mpeg1video": 1, "mpeg2video": 1}
"""Frames that one thread keeps back, of the codecs that show one frame for each packet."""
_MOST_DUE = 256
_DEEPEST_REORDER = 16


class Taken(NamedTuple):
    """What is known of the packet of a frame."""

    number: int
    """-1 where nobody knows the packet."""
    is_trusted: bool


class Account:
    """Packets that were sent to a decoder and are due to be shown.

    Times tell them apart. (FFmpeg's `opaque` would as well, but PyAV frees it under Python's lock:
    a thread of the decoder then waits for the one that waits for it to end.)
    """

    def __init__(self, context: VideoCodecContext, *, frame_threads: bool) -> None:
        self._held_back = _HELD_BACK.get(context.codec.canonical_name)
        self._is_delayed = frame_threads and not self._held_back
        self._due: dict[int | None, deque[int]] = {}
        self._times: dict[int, int | None] = {}  # of packets, in the order sent
        self._untrusted: set[int] = set()
        self.is_in_order = True
        """False once a frame has come before an earlier one, of a codec that does not reorder."""

    def send(self, number: int, packet: Packet, *, is_trusted: bool = True) -> None:
        """Note a packet, if it is one to be shown."""
        if packet.is_discard:
            return
        self._due.setdefault(packet.pts, deque()).append(number)
        self._times[number] = packet.pts
        if not is_trusted:
            self._untrusted.add(number)
        if len(self._times) > _MOST_DUE:  # such as the second fields of interlaced frames
            self.forget(next(iter(self._times)))

    def take(self, frame: VideoFrame) -> Taken:
        """Tell the packet of a frame that has come."""
        due = self._due.get(frame.pts) or self._due.get(None)
        if not due:
            return Taken(-1, True)
        number = due[0]
        taken = Taken(number, number not in self._untrusted)
        if self._held_back == 0:
            self.is_in_order &= next(iter(self._times)) == number
        self.forget(number)
        return taken

    def is_short(self) -> bool:
        """Whether more frames should have come by now, where that can be known."""
        if self._held_back is None or self._is_delayed:
            return False
        while len(self._times) > self._held_back and self._untrusted:
            self.forget(min(self._untrusted))  # it may have shown nothing, and nobody minds
        return len(self._times) > self._held_back

    def forget(self, number: int) -> None:
        """Expect no frame of a packet any more."""
        if number not in self._times:
            return
        pts = self._times.pop(number)
        self._due[pts].remove(number)
        if not self._due[pts]:
            del self._due[pts]
        self._untrusted.discard(number)

    def lapse(self, number: int) -> list[int]:
        """Expect no frame of the packets just before one any more; returns those to be trusted.

        Decoders of H.264 throw frames away that they hold back when one behind them is damaged.
        """
        lost = [due for due in self._times if number - _DEEPEST_REORDER <= due < number]
        trusted = [due for due in lost if due not in self._untrusted]
        for due in lost:
            self.forget(due)
        return trusted

    def distrust_behind(self, number: int) -> list[int]:
        """Trust no frame that is due of a packet behind one; returns those that were trusted."""
        behind = [due for due in self._times if due > number and due not in self._untrusted]
        self._untrusted.update(behind)
        return behind
