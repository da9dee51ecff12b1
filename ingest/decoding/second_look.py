"""Whether what a strict decoder refuses is junk that a muxer or an encoder has left in the packets.

A lenient decoder skips junk; and where it has damage before it, it fills in what it cannot decode.
So two lenient ones look at the same packets, of which one fills nothing in. Where their pictures
are the same, there was nothing to fill in. Where they differ by a little, but a packet is refused
again and again, the encoder is the cause: damage is neither as frequent nor as small.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice

from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.decoding.container import open_container, seek, shown_packets, stream_at
from ingest.decoding.decoder import drain, prepare
from ingest.decoding.losses import losses_of_file
from ingest.decoding.traits import PLAIN

_FILL_IN = frozenset(
    {"h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263"}
    | {"flv1", "wmv1", "wmv2", "wmv3", "vc1", "rv10", "rv20", "rv30", "rv40"}
)
"""Codecs whose decoders fill in what they cannot decode, unless `ec` forbids it."""
_MOST_PACKETS = 3000
_LITTLE = 0.5
"""Share of a picture that may be filled in where the cause is not damage."""
_LOOKED_AT = 150
_AGAIN_AND_AGAIN = 5


def is_junk(
    path: str,
    index: int,
    first: int,
    last: int,
    *,
    from_pts_ns: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Whether the packets of a stream from a key frame `first` to one after `last` show pictures in
    which nothing, or again and again a little, was filled in. `index` is that of the stream in its
    file, and packets are numbered from where `from_pts_ns` leads.
    """
    if last - first > _MOST_PACKETS:
        return False
    filled = _pictures(path, index, first, last, from_pts_ns, may_fill_in=True)
    plain = _pictures(path, index, first, last, from_pts_ns, may_fill_in=False)
    most = 0.0
    try:
        with closing(filled), closing(plain):
            for one, other in zip(filled, plain, strict=True):
                most = max(most, _difference(one, other))
                if most > _LITTLE or should_stop():
                    return False
        return not most or _refused(path, index, first, from_pts_ns) >= _AGAIN_AND_AGAIN
    except (FFmpegError, ValueError):  # it does not decode, or one shows more than the other
        return False


def _pictures(
    path: str, index: int, first: int, last: int, from_pts_ns: int | None, *, may_fill_in: bool
) -> Generator[VideoFrame, None, None]:
    """Frames of a lenient decoder; ValueError where some are missing, or bytes between packets."""
    with closing(open_container(path)) as container:
        stream = _stream(container, index, from_pts_ns)
        if stream.codec_context.name not in _FILL_IN:
            raise ValueError(f"{stream.codec_context.name} fills nothing in")
        if not may_fill_in:
            stream.codec_context.options = {"ec": "0"}
        shown = due = 0
        with closing(losses_of_file(stream, path)) as losses:
            before = None
            for number, packet in enumerate(
                islice(shown_packets(container, stream), first, None), first
            ):
                if number > last and packet.is_keyframe:
                    break
                if packet.is_corrupt or (before and losses.is_between(before, packet)):
                    raise ValueError(f"packet {number} is damaged")
                before = packet
                due += not packet.is_discard
                for frame in stream.codec_context.decode(packet):
                    shown += 1
                    yield frame
        for frame in drain(stream):
            shown += 1
            yield frame
        if shown != due:
            raise ValueError(f"{due} packets show {shown} frames")


def _difference(one: VideoFrame, other: VideoFrame) -> float:
    """Share of the samples that differ."""
    return float((one.to_ndarray() != other.to_ndarray()).mean())


def _refused(path: str, index: int, first: int, from_pts_ns: int | None) -> int:
    """How often a strict decoder refuses a packet after it has taken one."""
    refused, is_taken = 0, False
    with closing(open_container(path)) as container:
        stream = _stream(container, index, from_pts_ns)
        context = prepare(stream, PLAIN)
        for packet in islice(shown_packets(container, stream), first, first + _LOOKED_AT):
            try:
                context.decode(packet)
                is_taken = True
            except FFmpegError:
                refused, is_taken = refused + is_taken, False
    return refused


def _stream(container: InputContainer, index: int, from_pts_ns: int | None) -> VideoStream:
    stream = stream_at(container, index)
    stream.codec_context.thread_count = 1
    if from_pts_ns is not None:
        seek(container, stream, from_pts_ns)
    return stream
