"""What a stream is like that its header does not say: whether its times and its rules hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from av.video.stream import VideoStream

from ingest.decoding.container import Stamp

Stamps = Literal["pts", "dts"]

_WRITTEN_TIMES = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
"""These store the time when each frame is shown. Others store some, or only when it is decoded,
and FFmpeg derives the rest from the order that it expects."""
_FROM_AVI = "mpeg4"
"""Wherever this is stored, it may have been copied from AVI with the times derived there."""
_FEWEST_PACKETS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """How a stream is to be decoded."""

    is_strict: bool = True
    """False of a file in which nothing decodes where every breach of its codec's rules counts."""
    fills_in: bool = True
    """False of a file with junk after its pictures, which a lenient decoder takes for errors in
    them: it would fill in what is there."""
    times_by_order: Stamps | None = None
    """Which times of packets, in the order in which they are stored, are those of the frames in the
    order in which they are shown. None where each frame has the time of its own packet."""
    marks_keys: bool = True
    """False of a stream of which no packet is marked as a key frame: what it shows must tell."""


PLAIN = Traits()


def times_in_stored_order(stream: VideoStream, stamps: Sequence[Stamp]) -> Stamps | None:
    """Which times of packets grow with their number, where they show no order of the frames.

    Where these are right all the same, because no frame happens to be reordered, taking them in the
    order in which frames are shown changes nothing.
    """
    shown, decoded = [stamp.pts for stamp in stamps], [stamp.dts for stamp in stamps]
    if None in shown:
        return "dts" if _grow(decoded) else None
    return "pts" if stream.codec_context.reorder_depth and _grow(shown) else None


def may_have_wrong_times(stream: VideoStream, stamps: Sequence[Stamp]) -> bool:
    """Whether the times of some frames should be looked at, and there are others to use."""
    shown, decoded = [stamp.pts for stamp in stamps], [stamp.dts for stamp in stamps]
    if not stream.codec_context.reorder_depth or None in shown or not _grow(decoded):
        return False
    is_early = any(a < b for a, b in zip(shown, decoded, strict=True))  # type: ignore[operator]
    is_written = stream.container.format.name in _WRITTEN_TIMES
    is_derived = not is_written or stream.codec_context.name == _FROM_AVI
    return is_early or is_derived or len(set(shown)) < len(shown)


def go_back(times: Sequence[int | None]) -> bool:
    """Whether frames that come in the order in which they are shown have times that do not grow."""
    known = [time for time in times if time is not None]
    return any(after <= before for before, after in pairwise(known))


def _grow(times: Sequence[int | None]) -> bool:
    return len(times) >= _FEWEST_PACKETS and None not in times and not go_back(times)
