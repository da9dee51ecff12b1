"""Whether what a strict decoder refuses is junk that a muxer or an encoder has left in the packets.

A lenient decoder skips junk; and where it has damage before it, it fills in what it cannot decode.
So two lenient ones look at the same packets, of which one fills nothing in. Where their pictures
are the same, there was nothing to fill in. They differ where a decoder takes the junk after a
picture for an error in it. Then a strict decoder takes the packet as soon as its end is cut off,
and shows what the decoder that fills nothing in has made of all of it. How much two pictures
differ says nothing: junk costs from .13 to .63 of the samples, damage from .06 to .99.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice

import numpy as np
from av import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.decoding.container import open_container, seek, shown_packets, stream_at
from ingest.decoding.decoder import drain
from ingest.decoding.losses import losses_of_file
from ingest.decoding.nal import coding_of_fields, padded

_FILL_IN = frozenset(
    {"h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263"}
    | {"flv1", "wmv1", "wmv2", "wmv3", "vc1", "rv10", "rv20", "rv30", "rv40"}
)
"""Codecs whose decoders fill in what they cannot decode, unless `ec` forbids it."""
_MOST_PACKETS = 3000
_MOST_DECODED = 20_000
"""Packets that are decoded to look for the ends of pictures, of which each takes some dozens."""
_MOST_BEYOND = 64
"""Bytes at the end of a picture which may change nothing in it: blocks that stay as they were."""


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
    which nothing was filled in, or that would be whole without the end of their packets. `index` is
    that of the stream in its file, and packets are numbered from where `from_pts_ns` leads.
    """
    if last - first > _MOST_PACKETS:
        return False
    filled = _pictures(path, index, first, last, from_pts_ns, may_fill_in=True)
    plain = _pictures(path, index, first, last, from_pts_ns, may_fill_in=False)
    is_same = True
    try:
        with closing(filled), closing(plain):
            for one, other in zip(filled, plain, strict=True):
                is_same &= np.array_equal(one.to_ndarray(), other.to_ndarray())
                if should_stop():
                    return False
        return is_same or _are_whole_before_their_end(
            path, index, first, last, from_pts_ns, should_stop
        )
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
        if coding_of_fields(stream) is not None:
            raise ValueError("nothing is filled in where a field is damaged")
        if not may_fill_in:
            stream.codec_context.options = {"ec": "0"}
        shown = due = 0
        with closing(losses_of_file(stream, path)) as losses:
            packets = islice(shown_packets(container, stream, losses), first, None)
            for number, packet in enumerate(packets, first):
                if number > last and packet.is_keyframe:
                    break
                if packet.is_corrupt:
                    raise ValueError(f"packet {number} is damaged")
                due += not packet.is_discard
                for frame in stream.codec_context.decode(packet):
                    shown += 1
                    yield frame
        for frame in drain(stream):
            shown += 1
            yield frame
        if shown != due:
            raise ValueError(f"{due} packets show {shown} frames")


def _are_whole_before_their_end(
    path: str,
    index: int,
    first: int,
    last: int,
    from_pts_ns: int | None,
    should_stop: Callable[[], bool],
) -> bool:
    """Whether a strict decoder takes each packet, or a part of it that shows as much."""
    with closing(open_container(path)) as container:
        stream = _stream(container, index, from_pts_ns)
        trial = _Trial(stream, should_stop)
        for number, packet in enumerate(
            islice(shown_packets(container, stream), first, None), first
        ):
            if number > last and packet.is_keyframe:
                break
            if packet.is_keyframe:
                trial.begin()
            if not trial.takes(bytes(packet)):
                return False
    return True


class _Trial:
    """Tries parts of packets on decoders, which have been given what came since a key frame."""

    def __init__(self, stream: VideoStream, should_stop: Callable[[], bool]) -> None:
        """ValueError ends all trials once `should_stop`."""
        self._of, self._should_stop = stream.codec_context, should_stop
        self._since_key: list[bytes] = []
        self._decoded = 0

    def begin(self) -> None:
        """Note that a key frame comes next."""
        self._since_key = []

    def takes(self, data: bytes) -> bool:
        """Whether a strict decoder takes the next packet, or one without the end of it."""
        part = data if self._strictly(data) else self._without_junk(data)
        if part is not None:
            self._since_key.append(part)
        return part is not None

    def _without_junk(self, data: bytes) -> bytes | None:
        """The shortest part that shows as much as all of it, if a strict decoder takes that."""
        whole = self._pictures(data)
        short, length = 0, len(data)
        while length - short > 1:
            middle = (short + length) // 2
            is_as_whole = self._pictures(data[:middle]) == whole
            short, length = (short, middle) if is_as_whole else (middle, length)
        longest = min(length + _MOST_BEYOND, len(data))
        parts = (data[:end] for end in range(length, longest))
        return next((part for part in parts if self._strictly(part)), None)

    def _strictly(self, data: bytes) -> bool:
        try:
            self._frames(data, {"err_detect": "explode"})
        except FFmpegError:
            return False
        return True

    def _pictures(self, data: bytes) -> list[bytes]:
        """What a decoder that fills nothing in shows from a packet on; nothing where it fails."""
        try:
            frames = self._frames(data, {"ec": "0"})
        except FFmpegError:
            return []
        return [frame.to_ndarray().tobytes() for frame in frames]

    def _frames(self, data: bytes, options: dict[str, str]) -> list[VideoFrame]:
        """Decode a packet, after those since the last key frame."""
        self._decoded += len(self._since_key) + 1
        if self._decoded > _MOST_DECODED or self._should_stop():
            raise ValueError("too long to look at")
        context = CodecContext.create(self._of.name, "r")
        assert isinstance(context, VideoCodecContext)
        context.extradata, context.thread_count, context.options = self._of.extradata, 1, options
        for part in self._since_key:
            context.decode(padded(part))
        return [*context.decode(padded(data)), *context.decode(None)]


def _stream(container: InputContainer, index: int, from_pts_ns: int | None) -> VideoStream:
    stream = stream_at(container, index)
    stream.codec_context.thread_count = 1
    if from_pts_ns is not None:
        seek(container, stream, from_pts_ns)
    return stream
