"""Which packet a decoded frame came from, and which packets still lack their frames."""

from collections import deque
from typing import NamedTuple

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.decoding.traits import Stamps

_HELD_BACK = {"av1": 0, "mpeg1video": 1, "mpeg2video": 1}
"""Frames that one thread keeps back, of the codecs that show one frame for each packet."""
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

    def __init__(
        self, stream: VideoStream, *, frame_threads: bool, times_by_order: Stamps | None = None
    ) -> None:
        """With `times_by_order`, frames get the times of packets in the order they come out."""
        context = stream.codec_context
        self._held_back = _HELD_BACK.get(context.codec.canonical_name)
        self._is_delayed = frame_threads and not self._held_back
        self._due: dict[int | None, deque[int]] = {}
        self._times: dict[int, int | None] = {}  # of packets, in the order sent
        self._untrusted: set[int] = set()
        self.is_timeless = times_by_order is not None
        """Whether a frame's time is known by the order alone in which frames are shown."""
        self._slots = (
            _Slots(times_by_order, max(1, context.reorder_depth)) if times_by_order else None
        )
        self.is_in_order = True
        """False once a frame has come before an earlier one, of a codec that does not reorder."""

    def send(self, number: int, packet: Packet, *, is_trusted: bool = True) -> None:
        """Note a packet, if it is one to be shown."""
        if packet.is_discard:
            return
        if self._slots is not None:
            self._slots.add(number, packet)
        self._due.setdefault(packet.pts, deque()).append(number)
        self._times[number] = packet.pts
        if not is_trusted:
            self._untrusted.add(number)
        if len(self._times) > _MOST_DUE:  # such as the second fields of interlaced frames
            self.forget(next(iter(self._times)))

    def take(self, frame: VideoFrame) -> Taken:
        """The packet of a frame that has come, and its time where its container has none."""
        due = self._due.get(frame.pts) or self._due.get(None)
        number = due[0] if due else -1
        if self._slots is not None:
            frame.pts = self._slots.take(number)
        if number < 0:
            return Taken(-1, True)
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

    def begin_at(self, number: int) -> None:
        """Start again at a key frame: nothing from it on depends on earlier packets."""
        if self._slots is not None:
            self._slots.begin_at(number)

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

    def trust_after(self, number: int) -> None:
        """Trust the frames that are due of packets after one."""
        self._untrusted = {due for due in self._untrusted if due <= number}


class _Slots:
    """Times at which frames are shown, given out in the order in which a decoder shows them.

    They are those of packets in the order in which they are stored. A packet that shows nothing
    leaves a time over; it is passed over, as a frame is shown at most `depth` packets before its
    own. Decoding times are late: a decoder that reorders frames shows none before it has got that
    many packets.
    """

    def __init__(self, stamps: Stamps, depth: int) -> None:
        self._stamps: Stamps = stamps
        self._late = depth if stamps == "dts" else 0
        self._least = self._late - depth
        self._times: deque[tuple[int, int]] = deque()  # number of a packet, time
        self._begun_at: int | None = None

    def add(self, number: int, packet: Packet) -> None:
        """Note the next packet."""
        if self._begun_at is None:
            self._begun_at = number
        time = packet.pts if self._stamps == "pts" else packet.dts
        if time is not None:
            self._times.append((number, time))

    def begin_at(self, number: int) -> None:
        """Start again at a packet: frames from it on have none of the times before it."""
        self._begun_at = number

    def take(self, number: int) -> int | None:
        """The time of the next frame, which comes from the packet of a number; None at the end."""
        earliest = number + self._least
        if self._begun_at is not None and number >= self._begun_at:
            earliest = max(earliest, self._begun_at + self._late)
        while self._times and self._times[0][0] < earliest:
            self._times.popleft()
        return self._times.popleft()[1] if self._times else None
