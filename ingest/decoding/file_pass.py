"""One pass through a file, decoded on all cores as long as it is undamaged.

all cores ── an error, a frame that did not come ──▶ one thread, from some key frames before

Frames that are decoded side by side come late and in bulk, and some that are good get lost with an
error. So the stretch where anything went wrong is decoded again, and the rest as well, on one
thread: what comes out never depends on the number of cores. It begins some key frames before, as
frames stored after one may refer to what is before it.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import Literal

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.addresses import without_secrets
from ingest.decoding.account import Account
from ingest.decoding.container import open_container, packet_ns, seek, shown_packets, stream_at
from ingest.decoding.decoder import MAX_BAD_PACKETS, Decoder, drain, prepare
from ingest.decoding.gate import Gate, Verdict
from ingest.decoding.losses import Losses, NoLosses, losses_of_file
from ingest.decoding.second_look import is_junk
from ingest.decoding.timeline import Timeline
from ingest.decoding.traits import PLAIN, Traits
from ingest.errors import SourceStopped, VideoError

log = logging.getLogger(__name__)

_RUN_IN_KEYS = 3
_MOST_FAILED_READS = 2
"""In a row. A disk or a server that fails is asked for the same bytes each time, and FFmpeg has
waited for the server before; junk in a file lies before what comes next."""
_LATE_NS = 1_000_000_000


Ended = Literal["done", "refused", "broken"]
"""All is handed on, a decoder has reported an error, or anything else is wrong."""


class Handed:
    """How far a pass has come: packets that are done with, and the key frames after them."""

    def __init__(self) -> None:
        self.settled = bytearray()
        """For each packet, 1 where its frame has been handed on, or none is to come."""
        self._keys: deque[int] = deque()

    @property
    def restart(self) -> int:
        """The packet from which all that is not settled yet can be decoded."""
        return self._keys[0] if self._keys else len(self.settled)

    @property
    def is_complete(self) -> bool:
        """Whether every packet since then is done with."""
        return not self.settled.count(0, self.restart)

    def add(self, packet: Packet) -> int:
        """Note the next packet; returns its number."""
        number = len(self.settled)
        self.settled.append(packet.is_discard)
        if packet.is_keyframe:
            self._keys.append(number)
        return number

    def hand(self, number: int) -> None:
        """Note that the frame of a packet is handed on."""
        if number < 0:
            return
        self.settled[number] = 1
        while len(self._keys) > _RUN_IN_KEYS and self._keys[_RUN_IN_KEYS] <= number:
            self._keys.popleft()


def decode_file(
    container: InputContainer,
    stream: VideoStream,
    path: str,
    timeline: Timeline,
    *,
    from_pts_ns: int | None = None,
    traits: Traits = PLAIN,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[VideoFrame]:
    """Decode a file just opened, from the key frame before a time; what is wrong is reported to
    `timeline` and left out. Raises VideoError where nothing decodes any more, and SourceStopped
    at the next packet when it `should_stop`.
    """
    stream.thread_type = "AUTO"  # several times as fast as the default
    if from_pts_ns is not None and traits.times_by_order:
        from_pts_ns -= _LATE_NS  # seeking goes by the time of a packet, and its frame comes later
    if from_pts_ns is not None:
        seek(container, stream, from_pts_ns)
    if not traits.marks_keys:  # what a frame shows must tell, and that is known too late elsewhere
        yield from decode_on_one_thread(
            container, stream, path, timeline, traits=traits, should_stop=should_stop
        )
        return
    handed = Handed()
    with closing(losses_of_file(stream, path, should_stop)) as losses:
        packets = _packets(container, stream, path, should_stop, losses)
        ended = yield from _on_all_cores(packets, stream, timeline, handed, traits=traits)
    if ended == "done":
        return
    if (
        ended == "refused"
        and traits.is_strict
        and is_junk(
            *(path, stream.index, handed.restart, len(handed.settled)),
            from_pts_ns=from_pts_ns,
            should_stop=should_stop,
        )
    ):
        log.warning(
            "%s: strict decoding refuses packets that show no damage; it is read leniently, and "
            "damage in it may go unseen",
            without_secrets(path),
        )
        traits = replace(traits, is_strict=False, fills_in=False)
    with closing(open_container(path)) as again:
        stream = stream_at(again, stream.index)
        if from_pts_ns is not None:
            seek(again, stream, from_pts_ns)
        yield from decode_on_one_thread(
            again,
            stream,
            path,
            timeline,
            handed,
            traits=traits,
            should_stop=should_stop,
        )


def decode_on_one_thread(
    container: InputContainer,
    stream: VideoStream,
    path: str,
    timeline: Timeline,
    handed: Handed | None = None,
    *,
    ahead: Sequence[Packet] = (),
    traits: Traits = PLAIN,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[VideoFrame]:
    """Decode a file where it is, except for what another pass has `handed` on before.

    Packets that have been read `ahead` come first.
    """
    handed = handed or Handed()
    stream.codec_context.thread_count = 1
    number, unread, unreadable = 0, 0, None
    with closing(losses_of_file(stream, path, should_stop)) as losses:
        decoder = Decoder(stream, timeline, NoLosses(), settled=handed.settled, traits=traits)
        while True:
            try:
                packets = _packets(container, stream, path, should_stop, losses, ahead)
                ahead = ()
                for packet in packets:
                    if number >= handed.restart:
                        yield from decoder.decode(number, packet)
                    number, unread = number + 1, 0
                break
            except FFmpegError as error:  # it ends the iterator, not the file
                if not unread:
                    decoder.skip(number)
                unread += 1
                if _is_unreadable(error) and unread == _MOST_FAILED_READS:
                    unreadable = error
                    break
                if unread == MAX_BAD_PACKETS:
                    log.warning(
                        "%s: cannot be read on after %d packets (%s); what follows is left out",
                        *(without_secrets(path), number, error.strerror),
                    )
                    break
    yield from decoder.end()
    if unreadable is not None:
        raise VideoError(
            f"{without_secrets(path)}: cannot be read on after {number} packets "
            f"({unreadable.strerror}); what was committed is kept: run the same command again, or "
            "if the disk is damaged, ingest a copy of what can be read"
        )
    if decoder.errors_in_a_row >= MAX_BAD_PACKETS:
        raise VideoError(
            f"{path}: the last {decoder.errors_in_a_row} packets in a row did not decode, after "
            f"{timeline.counters.stored} frames; the rest is lost: repair or re-encode it"
        )


def _is_unreadable(error: FFmpegError) -> bool:
    """Whether a disk or a server failed; after junk FFmpeg may ask to be called again."""
    return isinstance(error, OSError) and not isinstance(error, BlockingIOError)


def _packets(
    container: InputContainer,
    stream: VideoStream,
    path: str,
    should_stop: Callable[[], bool],
    losses: Losses,
    ahead: Sequence[Packet] = (),
) -> Iterator[Packet]:
    """Packets in file order; a stretch without a frame may be long, so each may be the last."""
    for packet in chain(ahead, shown_packets(container, stream, losses)):
        if should_stop():
            raise SourceStopped(path)
        yield packet


def _on_all_cores(
    packets: Iterator[Packet],
    stream: VideoStream,
    timeline: Timeline,
    handed: Handed,
    *,
    traits: Traits,
) -> Generator[VideoFrame, None, Ended]:
    """Decode until anything is wrong; what was."""
    context = prepare(stream, traits)
    gate = Gate(stream, NoLosses())
    account = Account(stream, frame_threads=True, times_by_order=traits.times_by_order)
    try:
        for packet in chain(packets, [None]):
            if packet is not None:
                was_open, number = gate.is_open, handed.add(packet)
                verdict = gate.judge(packet)
                if was_open and not gate.is_open:
                    return "broken"
                if verdict != "sound":
                    _leave_out(packet, verdict, timeline)
                    handed.settled[number] = 1
                    continue
                account.send(number, packet)
            for frame in drain(stream) if packet is None else context.decode(packet):
                number = account.take(frame).number
                if frame.is_corrupt or not account.is_in_order:
                    return "broken"
                handed.hand(number)
                yield frame
            if account.is_short():
                return "broken"
    except FFmpegError as error:
        return "broken" if _is_unreadable(error) else "refused"
    return "done" if handed.is_complete else "broken"


def _leave_out(packet: Packet, verdict: Verdict, timeline: Timeline) -> None:
    if verdict == "damaged":
        timeline.corrupt_packet()
    else:
        timeline.drop(packet_ns(packet))
