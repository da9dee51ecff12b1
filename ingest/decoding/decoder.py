"""Decoding that hands on no frame which a damaged one has touched.

closed ── key frame ──▶ open ── damage ──▶ closed
  └─ what is decoded meanwhile is dropped and counted: it refers to what is missing or wrong

Damage is a packet that does not decode, that its container marks as corrupt, or that is next to a
hole. A codec hides some of it: `err_detect=explode` makes it report damage rather than paint over
it, and where each packet must show one frame, one that shows none is damaged. What decodes into
another picture without breaking a rule of its codec cannot be distinguished from a good one.
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress

from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from ingest.decoding.account import Account
from ingest.decoding.container import packet_ns, time_ns
from ingest.decoding.gate import Gate
from ingest.decoding.losses import Losses
from ingest.decoding.timeline import Timeline
from ingest.decoding.traits import PLAIN, Traits

_NOT_INTRA = (PictureType.P, PictureType.B)
_LACKING = {"h264", "hevc"}
MAX_BAD_PACKETS = 300
"""This many packets in a row that do not decode, up to the end, mean that the rest is lost."""


class Decoder:
    """A decoder without frame threads: it reports at once which packet does not decode."""

    def __init__(
        self,
        stream: VideoStream,
        timeline: Timeline,
        losses: Losses,
        *,
        settled: Sequence[int] = (),
        traits: Traits = PLAIN,
    ) -> None:
        """`settled` has a 1 for each packet whose frame has been handed on or dropped before."""
        self.errors_in_a_row = 0
        """How many of the latest packets did not decode, one after the other."""
        self._stream = stream
        self._context = prepare(stream, traits)
        self._timeline = timeline
        self._settled = settled
        self._gate = Gate(stream, losses)
        self._marks_keys = traits.marks_keys
        self._account = Account(stream, frame_threads=False, times_by_order=traits.times_by_order)
        # a lenient decoder of these marks what it fills in, those of H.264 and HEVC what they lack
        self._keeps_filled_in = not traits.is_strict and self._context.name not in _LACKING
        self._has_lost = False
        self._opened_at = -1
        self._refreshes_slowly = False
        self._unreported: deque[tuple[int, bool]] = deque()

    def decode(
        self, number: int, packet: Packet, following: Packet | None = None
    ) -> Iterator[VideoFrame]:
        """Sound frames that come with the next packet; its `number` is higher than all before.

        `following` is the packet after it, where that is known already.
        """
        was_open = self._gate.is_open
        verdict = self._gate.judge(packet, following)
        is_trusted = verdict == "sound"
        if not was_open and self._gate.is_open:  # a key frame: nothing before it matters any more
            if self._refreshes_slowly and self._has_lost:
                yield from self._forget_all()
            self._account.begin_at(number)
            self._opened_at = number
        if verdict == "damaged":
            self._lose(number)
        elif not is_trusted:  # decoded all the same, for later packets may need its state
            self._has_lost = True
            if self._marks_keys and not packet.is_discard:
                self._drop(number, packet_ns(packet))
            if was_open and not self._gate.is_open:  # a hole before it: the packet itself is intact
                self._lose(number, is_damaged=False)
        self._account.send(number, packet, is_trusted=is_trusted)
        try:
            frames = self._context.decode(packet)
        except FFmpegError:
            self.errors_in_a_row += 1
            self._shows_nothing(number, is_trusted)
            return
        if frames:
            self.errors_in_a_row = 0
        yield from self._sound(frames)
        if self._account.is_short():  # it decoded, but showed no frame where its codec must
            self._shows_nothing(number, is_trusted)

    def end(self) -> Iterator[VideoFrame]:
        """Sound frames that were held back."""
        try:
            yield from self._sound(drain(self._stream))
        except FFmpegError:
            self._has_lost = True
        self._report_before(sys.maxsize)

    def skip(self, number: int) -> None:
        """Note that nothing could be read where the next packet should be."""
        self.errors_in_a_row += 1
        self._gate.close()
        self._lose(number)

    def _forget_all(self) -> Iterator[VideoFrame]:
        """Hand on what is held back, and decode on as from the start.

        A decoder that remembers nothing shows no frame before all of the picture has been renewed.
        """
        with suppress(FFmpegError):
            yield from self._sound(drain(self._stream))
        self._context.flush_buffers()

    def _sound(self, frames: list[VideoFrame]) -> Iterator[VideoFrame]:
        """The frames that no damage has touched; the others are dropped and counted."""
        for frame in frames:
            number, is_trusted = self._account.take(frame)
            if not is_trusted and not self._marks_keys:
                is_trusted = self._opens_gate(number, frame)
            # refers to damage; or came from nowhere when packets are known to be lost, and may be
            # what the decoder made up for one of them
            if not is_trusted or (number < 0 and self._has_lost):
                continue
            # decoded after the key frame that ended the damage, but shown before it: as with
            # H.264's leading pictures, what it refers to may be gone
            if self._has_lost and number > self._opened_at and self._account.leads(self._opened_at):
                self._drop(number, time_ns(frame))
                continue
            # with gradual refresh a "key frame" renews a stripe of the picture, and the rest is
            # still that of the damage: wait for the next one, and from then on know this stream
            only_begins = self._only_begins_to_refresh(number, frame)
            self._refreshes_slowly |= only_begins
            if only_begins or (frame.is_corrupt and not self._keeps_filled_in):
                self._drop(number, time_ns(frame))
                self._distrust_from(number)
            elif not self._is_settled(number):  # otherwise an earlier pass has handed it on
                self._report_before(number)
                yield frame

    def _opens_gate(self, number: int, frame: VideoFrame) -> bool:
        """Whether a frame refers to none before it, though its packet was not marked as such."""
        if frame.is_corrupt or frame.pict_type in _NOT_INTRA:
            self._drop(number, time_ns(frame))
            return False
        self._gate.open()
        self._account.trust_after(number)
        return True

    def _only_begins_to_refresh(self, number: int, frame: VideoFrame) -> bool:
        """Whether a key frame after damage renews a part of the picture only, as was not known."""
        is_first = self._has_lost and number == self._opened_at
        return is_first and not self._refreshes_slowly and frame.pict_type in _NOT_INTRA

    def _shows_nothing(self, number: int, is_trusted: bool) -> None:
        self._account.forget(number)
        if is_trusted:
            self._gate.close()
            self._lose(number)

    def _distrust_from(self, number: int) -> None:
        """Keep back the frames that were decoded after a corrupt one."""
        self._gate.close()
        for later in self._account.distrust_after(number):
            self._drop(later, None)
        self._lose(number, is_damaged=False)

    def _lose(self, number: int, *, is_damaged: bool = True) -> None:
        """Footage breaks off at a packet, which counts once the frames before it have come out."""
        self._has_lost = True
        if self._account.is_timeless:
            for due in self._account.distrust_after(-1):
                self._drop(due, None)
        if not self._is_settled(number):
            self._unreported.append((number, is_damaged))

    def _report_before(self, number: int) -> None:
        while self._unreported and self._unreported[0][0] < number:
            lost_at, is_damaged = self._unreported.popleft()
            for never_came in self._account.lapse(lost_at):
                self._drop(never_came, None)
            if is_damaged:
                self._timeline.corrupt_packet()
            else:
                self._timeline.break_off()

    def _drop(self, number: int, source_ns: int | None) -> None:
        if not self._is_settled(number):
            self._timeline.drop(source_ns)

    def _is_settled(self, number: int) -> bool:
        return 0 <= number < len(self._settled) and bool(self._settled[number])


def prepare(stream: VideoStream, traits: Traits) -> VideoCodecContext:
    """Let a decoder report damage rather than paint over it, where its stream keeps the rules."""
    context = stream.codec_context
    if traits.is_strict:
        context.options = {"err_detect": "explode"}
    elif not traits.fills_in:
        context.options = {"ec": "0"}
    return context


def drain(stream: VideoStream) -> list[VideoFrame]:
    """Frames that the decoder of a stream has held back, in the time base of the stream."""
    context = stream.codec_context
    frames = context.decode(None) if context.is_open else []
    for frame in frames:
        frame.time_base = stream.time_base
    return frames
