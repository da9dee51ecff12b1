"""Which packet a decoded frame came from, and which packets still lack their frames."""

from collections import deque
from heapq import heappop, heappush
from typing import NamedTuple

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_HELD_BACK = {"av1": 0, "mpeg1video": 1, "mpeg2video": 1}
"""Frames that one thread keeps back, of the codecs that show one frame for each packet."""
_WITHOUT_PTS = {"avi"}
"""These store frames in decoding order, without the time when each is shown; FFmpeg makes up
presentation times that lead and lag by the reordering."""
_UNTOLD_ORDER = {"h264", "hevc"}
"""Codecs whose display order FFmpeg does not know without decoding; MPEG-4's it does know."""
_MOST_DUE = 256
_DEEPEST_REORDER = 16


class Taken(NamedTuple):
    """What is known of the packet of a frame."""

    number: int
    """-1 where the packet is not known."""
    is_trusted: bool


class Account:
    """Packets that were sent to a decoder and are due to be shown.

    Times distinguish them. (FFmpeg's `opaque` would as well, but PyAV frees it under Python's lock:
    a thread of the decoder then waits for the one that waits for it to end.)
    """

    def __init__(self, stream: VideoStream, *, frame_threads: bool) -> None:
        context = stream.codec_context
        self._held_back = _HELD_BACK.get(context.codec.canonical_name)
        self._is_delayed = frame_threads and not self._held_back
        self._due: dict[int | None, deque[int]] = {}
        self._times: dict[int, int | None] = {}  # of packets, in the order sent
        self._untrusted: set[int] = set()
        self.is_timeless = (
            stream.container.format.name in _WITHOUT_PTS and context.name in _UNTOLD_ORDER
        )
        """Whether a frame's time is known by the order alone in which frames are shown."""
        self._slots: list[int] = []
        self._begun_at = 0
        self.is_in_order = True
        """False once a frame has come before an earlier one, of a codec that does not reorder."""

    def send(self, number: int, packet: Packet, *, is_trusted: bool = True) -> None:
        """Note a packet, if it is one to be shown."""
        if packet.is_discard:
            return
        if self.is_timeless and packet.dts is not None:
            heappush(self._slots, packet.dts)
        self._due.setdefault(packet.pts, deque()).append(number)
        self._times[number] = packet.pts
        if not is_trusted:
            self._untrusted.add(number)
        if len(self._times) > _MOST_DUE:  # such as the second fields of interlaced frames
            self.forget(next(iter(self._times)))

    def take(self, frame: VideoFrame) -> Taken:
        """The packet of a frame that has come, and its time where its container has none."""
        due = self._due.get(frame.pts) or self._due.get(None)
        if not due:
            return Taken(-1, True)
        number = due[0]
        if self._slots and number >= self._begun_at:
            frame.pts = heappop(self._slots)  # frames come in the order in which they are shown
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
            self.forget(min(self._untrusted))  # it may have shown nothing, which is no loss
        return len(self._times) > self._held_back

    def leads(self, key: int) -> bool:
        """Whether a frame that comes now is shown before a key frame that is still to come.

        Where times do not say so, the order does.
        """
        return self.is_timeless and key in self._times

    def begin_at(self, number: int, packet: Packet) -> None:
        """Start again at a key frame: nothing from it on depends on earlier packets."""
        self._begun_at = number
        while self._slots and packet.dts is not None and self._slots[0] < packet.dts:
            heappop(self._slots)

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

        Decoders of H.264 throw frames away that they hold back when one after them is damaged.
        """
        lost = [due for due in self._times if number - _DEEPEST_REORDER <= due < number]
        trusted = [due for due in lost if due not in self._untrusted]
        for due in lost:
            self.forget(due)
        return trusted

    def distrust_after(self, number: int) -> list[int]:
        """Trust no frame that is due of a packet after one; returns those that were trusted."""
        later = [due for due in self._times if due > number and due not in self._untrusted]
        self._untrusted.update(later)
        return later
