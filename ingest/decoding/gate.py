"""Which packets of a stream refer to nothing that is missing or damaged."""

from typing import Literal

from av.packet import Packet
from av.video.stream import VideoStream

from ingest.decoding.losses import Losses

_KNOW_LEADING = {"hevc", "vvc"}
"""At the start of a stream, decoders of these show the frames that refer to nothing gone."""

Verdict = Literal["sound", "untrusted", "damaged"]
"""A packet can be decoded, refers to what is missing or damaged, or is damaged itself."""


class Gate:
    """Open from a key frame to the next damage.

    Where no packet is marked as a key frame, whoever sees one opens it.
    """

    def __init__(self, stream: VideoStream, losses: Losses) -> None:
        codec = stream.codec_context.codec
        self._all_keys = codec.intra_only or codec.name == "wrapped_avframe"  # lavfi marks none
        self._is_matroska = stream.container.format.name == "matroska,webm"
        self._has_times = stream.container.format.name == "mpegts"
        self._knows_leading = codec.name in _KNOW_LEADING
        self._losses = losses
        self._is_doubtful = losses.can_hide_in_first
        self._sync_pts: int | None = None
        self._is_lost_after = False
        self.is_open = False
        """Whether there has been a key frame, and no damage since."""
        self._has_lost = False
        self._is_first_after_key = False

    def close(self) -> None:
        """Let nothing pass until the next key frame."""
        self.is_open, self._has_lost = False, True

    def open(self) -> None:
        """Let everything pass from here on."""
        self.is_open, self._sync_pts = True, None

    def judge(self, packet: Packet, following: Packet | None = None) -> Verdict:
        """Look at the next packet, and at the one after it where that is known already.

        What is missing between two packets has damaged the first of them, whose end is a part of
        what is missing; that is why `following` matters. Later packets refer to what is missing.
        """
        is_doubtful, self._is_doubtful = self._is_doubtful, False
        lost_before = self._is_lost_after
        self._is_lost_after = not self._all_keys and self._losses.is_between(packet, following)
        if packet.is_corrupt or self._is_lost_after:
            self.close()
            return "damaged"
        if lost_before:
            self.close()  # but a key frame right after the loss opens it again, below
        # in MPEG-TS, a key frame without a time is the rest of one that began in the hole
        is_remnant = self._has_times and not self.is_open and packet.pts is None
        if (packet.is_keyframe or self._all_keys) and not (is_remnant or is_doubtful):
            # frames shown before this one refer to what is gone, unless nothing was gone
            is_known = self._knows_leading and not self._has_lost
            self._sync_pts = None if self.is_open or is_known else packet.pts
            self.is_open = self._is_first_after_key = True
        is_sound = self.is_open and not self._leads(packet)
        self._has_lost |= not is_sound
        return "sound" if is_sound else "untrusted"

    def _leads(self, packet: Packet) -> bool:
        """Frames shown before a key frame but stored after it refer to what came before that. A
        Matroska file that was cut there gives them no time.
        """
        if self._sync_pts is None:
            return False
        if packet.pts is None:
            return self._is_first_after_key and self._is_matroska
        self._is_first_after_key &= packet.pts <= self._sync_pts
        return packet.pts < self._sync_pts
