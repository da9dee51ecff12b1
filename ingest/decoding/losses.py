"""Evidence that bytes of a stream are missing, which a hole in its times is not.

A recorder that leaves a frame out and a network that loses one leave the same hole. But later
frames refer to the one that was lost, and never to one that was not encoded. So in a file only
bytes count that do not follow on from each other:

    MPEG-TS    the continuity counter of its packets jumps
    Matroska   what is between two frames is not a chain of elements

Of other formats nothing is known but what a decoder finds. A live source has no bytes to look at,
but a network loses more than a camera leaves out: there, a hole in a steady rate is a loss.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from ingest.closing import Closing
from ingest.decoding.matroska import MatroskaLosses
from ingest.decoding.timeline import Pace, Steps
from ingest.decoding.transport import TransportLosses

_SPLICED = {"mpegts", "rtsp", "flv", "rtp", "sdp"}
"""What is left of the packets around a hole looks like one in these."""
_DATAGRAMS = ("udp:", "rtp:")
"""What addresses begin with from which single datagrams are lost."""
_MOST_REORDERED = 8
"""Where there are no decoding times, presentation times go up and down by as many frames."""


@runtime_checkable
class Losses(Closing, Protocol):
    """Evidence that a part of a stream is missing, looked at packet by packet."""

    @property
    def show_in_following(self) -> bool:
        """Whether the packet after one is needed to tell."""
        ...

    @property
    def can_hide_in_first(self) -> bool:
        """Whether the first packet may be damaged without a sign of it."""
        ...

    def is_between(self, packet: Packet, following: Packet | None) -> bool:
        """Whether something is missing after the start of a packet and before the next one's, if
        there is one.
        """
        ...


class NoLosses(Closing):
    """Of a container that shows nothing, or that lists its packets: none is lost unseen."""

    show_in_following = False
    can_hide_in_first = False

    def is_between(self, packet: Packet, following: Packet | None) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing to release."""


class LiveLosses(NoLosses):
    """Holes in the times of a live source, as soon as its rate is steady, and late marks.

    FFmpeg marks the datagrams between which some are missing, and cuts them into frames afterwards.
    It knows the end of a frame by the start of the next, so the mark is on the frame before the one
    that it is meant for. Before the first frame there is none to bear it.
    """

    show_in_following = True

    def __init__(self, pace: Pace, *, can_hide_in_first: bool = False) -> None:
        self.can_hide_in_first = can_hide_in_first
        self._decoding, self._showing = Steps(pace), Steps(pace)
        self._was_marked = False

    def is_between(self, packet: Packet, following: Packet | None) -> bool:
        """Whether the step between two packets is too long, or the mark before them is meant."""
        was_marked, self._was_marked = self._was_marked, packet.is_corrupt
        return was_marked or self._is_hole(packet, following)

    def _is_hole(self, packet: Packet, following: Packet | None) -> bool:
        if following is None or not following.time_base:
            return False
        times = following.time_base
        in_order = self._is_step(self._decoding, packet.dts, following.dts, times)
        shown = self._is_step(self._showing, packet.pts, following.pts, times / _MOST_REORDERED)
        return in_order or shown

    def _is_step(
        self, steps: Steps, before: int | None, after: int | None, time_base: Fraction
    ) -> bool:
        if before is None or after is None:
            return False
        return steps.is_hole(round((after - before) * time_base * 1_000_000_000))


def losses_of_file(
    stream: VideoStream, path: str, should_stop: Callable[[], bool] = lambda: False
) -> Losses:
    """What shows where bytes of a file are missing; of one behind a URL only FFmpeg's marks do.

    Where no frame refers to another, a decoder says what is damaged.
    """
    name = stream.container.format.name
    if not Path(path).is_file() or stream.codec_context.codec.intra_only:
        return NoLosses()
    if name == "mpegts":
        return TransportLosses(Path(path), pid=stream.id, should_stop=should_stop)
    if name == "matroska,webm":
        return MatroskaLosses(Path(path))
    return NoLosses()


def losses_of_device(stream: VideoStream, pace: Pace) -> Losses:
    """What shows where something of a live stream is missing."""
    if stream.container.format.name not in _SPLICED:
        return NoLosses()
    return LiveLosses(pace, can_hide_in_first=stream.container.name.startswith(_DATAGRAMS))


def marked(packets: Iterable[Packet], losses: Losses) -> Iterator[Packet]:
    """Packets as a file has them, those with something missing in or after them as corrupt ones."""
    for packet, following in with_following(packets, losses):
        packet.is_corrupt |= losses.is_between(packet, following)
        yield packet


def with_following(
    packets: Iterable[Packet], losses: Losses
) -> Iterator[tuple[Packet, Packet | None]]:
    """Each packet, and the one after it where losses show in that; waiting for it takes a frame."""
    if not losses.show_in_following:
        for packet in packets:
            yield packet, None
        return
    before: Packet | None = None
    try:
        for packet in packets:
            if before is not None:
                yield before, packet
            before = packet
    except FFmpegError:
        if before is not None:
            yield before, None
        raise
    if before is not None:
        yield before, None
