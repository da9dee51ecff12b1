"""Which packets of a stream refer to nothing that is missing or damaged."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Literal

from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from ingest.decoding.timeline import Pace, Steps

_INDEXED = {"mov,mp4,m4a,3gp,3g2,mj2", "avi"}
"""These list their packets, or write an empty one for a frame left out: none is lost unseen."""
_SPLICED = {"mpegts", "matroska,webm", "flv", "mpeg", "asf"}
"""What is left of the packets around a hole looks like one in these."""
_MOST_REORDERED = 8
"""Matroska stores no decoding times; presentation times go up and down by as many frames."""

Verdict = Literal["sound", "untrusted", "damaged"]
"""A packet can be decoded, refers to what is missing or damaged, or is damaged itself."""


class Gate:
    """Open from a key frame to the next damage."""

    def __init__(self, stream: VideoStream, pace: Pace) -> None:
        codec = stream.codec_context.codec
        self._all_keys = codec.intra_only or codec.name == "wrapped_avframe"  # lavfi marks none
        self._is_indexed = stream.container.format.name in _INDEXED
        self._has_times = stream.container.format.name == "mpegts"
        self._pace = pace
        self._decoding, self._showing = Steps(pace), Steps(pace)
        self._sync_pts: int | None = None
        self._before: Packet | None = None
        self._hole_after: bool | None = None
        self.is_open = False
        """Whether there has been a key frame, and no damage since."""

    def close(self) -> None:
        """Let nothing pass until the next key frame."""
        self.is_open = False

    def judge(self, packet: Packet, following: Packet | None) -> Verdict:
        """Look at the next packet, and at the one after it where that is known already.

        A hole between two packets is found from their times. In a spliced container (`_SPLICED`)
        what seems to be the packet before it may be made of what is left on both sides, so it is
        damaged as well: that is why `following` matters. In the others it is intact, and only
        later packets refer to what is missing.
        """
        hole_before = self._hole_after
        if hole_before is None:  # when its predecessor was judged, this packet was not known yet
            hole_before = self._before is not None and self._is_hole(self._before, packet)
        self._before = packet
        # kept for the next call: each step may be judged only once, as `Steps` remembers it
        self._hole_after = None if following is None else self._is_hole(packet, following)
        if packet.is_corrupt or self._hole_after:
            self.close()
            return "damaged"
        if hole_before:
            self.close()  # but a key frame right after the hole opens it again, below
        # in MPEG-TS, a key frame without a time is the rest of one that began in the hole
        is_remnant = self._has_times and not self.is_open and packet.pts is None
        if (packet.is_keyframe or self._all_keys) and not is_remnant:
            # frames shown before this one refer to what is gone, unless nothing was gone
            self._sync_pts = None if self.is_open else packet.pts
            self.is_open = True
        return "sound" if self.is_open and not self._leads(packet) else "untrusted"

    def _leads(self, packet: Packet) -> bool:
        """Frames shown before a key frame but stored after it refer to what came before that."""
        return packet.pts is not None and self._sync_pts is not None and packet.pts < self._sync_pts

    def _is_hole(self, packet: Packet, following: Packet) -> bool:
        """Whether packets have been lost between two, to which later ones may refer."""
        if self._is_indexed or self._all_keys or not following.time_base:
            return False
        times = following.time_base
        in_order = self._is_step(self._decoding, packet.dts, following.dts, times)
        shown = self._is_step(self._showing, packet.pts, following.pts, times / _MOST_REORDERED)
        return self._pace.tells_loss and (in_order or shown)

    def _is_step(
        self, steps: Steps, before: int | None, after: int | None, time_base: Fraction
    ) -> bool:
        if before is None or after is None:
            return False
        return steps.is_hole(round((after - before) * time_base * 1_000_000_000))


def with_following(
    packets: Iterable[Packet], stream: VideoStream
) -> Iterator[tuple[Packet, Packet | None]]:
    """Each packet, and the one after it where a hole between them would have damaged it."""
    if stream.container.format.name not in _SPLICED:
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
