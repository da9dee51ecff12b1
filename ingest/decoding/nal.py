"""Packets of H.264 and HEVC that are not one picture each, joined until they are.

Some muxers store what belongs to a picture, such as parameter sets, messages (SEI) or a delimiter,
as a packet of its own. A decoder then has nothing to show, and reports that as an error. So it does
of the second of two fields, which it shows with the first.
"""

from collections.abc import Iterable, Iterator

from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from ingest.decoding.fields import Field, FieldCoding, Units, field_coding

_NO_PICTURE = {
    "h264": frozenset({6, 7, 8, 9, 10, 11, 12, 13, 15}),
    "hevc": frozenset(range(32, 41)),
}
"""Kinds of units that are complete without a picture."""
_LENGTH_AT = {"h264": 4, "hevc": 21}
"""Where the header that mp4 and Matroska keep has the bytes of a length, less one."""
_PARAMETERS_AT = 8
"""Where the header of H.264 in mp4 and Matroska has its first parameter set."""
_LARGEST = 4096
"""Bytes of what is looked at; pictures that small cost little to look at."""
_MOST_READ = 1024
"""Bytes of a unit: a parameter set with all of its tables."""
_START_CODE = b"\0\0\1"


def join_to_pictures(packets: Iterable[Packet], stream: VideoStream) -> Iterator[Packet]:
    """Packets of a stream, where what holds no picture has become a part of the one after it, and a
    second field a part of the first.
    """
    codec = stream.codec_context.name
    if codec not in _NO_PICTURE:
        yield from packets
        return
    length = _length_bytes(stream)
    whole = _with_pictures(packets, codec, length)
    fields = coding_of_fields(stream)
    yield from whole if fields is None else _frames(whole, fields, length)


def coding_of_fields(stream: VideoStream) -> FieldCoding | None:
    """How to know the fields of a stream; None where it has none."""
    if stream.codec_context.name != "h264":
        return None
    header = stream.codec_context.extradata or b""
    starts = [_PARAMETERS_AT] if _length_bytes(stream) else _starts(header, 0)
    return field_coding(_units(header, starts))


def _length_bytes(stream: VideoStream) -> int:
    """How many bytes of length are before each unit; none where start codes are."""
    header, at = stream.codec_context.extradata or b"", _LENGTH_AT[stream.codec_context.name]
    has_lengths = len(header) > max(at, _PARAMETERS_AT) and header[0] == 1
    return (header[at] & 3) + 1 if has_lengths else 0


def padded(data: bytes) -> Packet:
    """A packet with the zeros after it that decoders read; that of `Packet(data)` has none."""
    packet = Packet(len(data))
    packet.update(data)
    return packet


def _joined(packets: list[Packet], like: Packet) -> Packet:
    """Packets as one that has the time and the marks of one of them."""
    joined = padded(b"".join(map(bytes, packets)))
    joined.pts, joined.dts, joined.duration = like.pts, like.dts, like.duration
    joined.time_base, joined.stream = like.time_base, like.stream
    joined.is_keyframe = like.is_keyframe
    joined.is_corrupt = any(packet.is_corrupt for packet in packets)
    return joined


def _with_pictures(packets: Iterable[Packet], codec: str, length: int) -> Iterator[Packet]:
    ahead: list[Packet] = []
    for packet in packets:
        if packet.size < _LARGEST and _holds_no_picture(bytes(packet), codec, length):
            ahead.append(packet)
        elif ahead and not packet.is_discard:
            yield _joined([*ahead, packet], like=packet)
            ahead = []
        else:
            yield packet


def _frames(packets: Iterable[Packet], coding: FieldCoding, length: int) -> Iterator[Packet]:
    """Both fields of a frame as one packet; a field whose other one is missing stays alone."""
    first: tuple[Packet, Field] | None = None
    try:
        for packet in packets:
            data = bytes(packet)
            field = coding.field(_units(data, _starts(data, length)))
            if first is not None and field is not None and field.completes(first[1]):
                yield _joined([first[0], packet], like=first[0])
                first = None
                continue
            if first is not None:
                yield first[0]
            first = None if field is None else (packet, field)
            if field is None:
                yield packet
    except FFmpegError:
        if first is not None:
            yield first[0]
        raise
    if first is not None:
        yield first[0]


def _holds_no_picture(data: bytes, codec: str, length: int) -> bool:
    """Whether a packet consists of units of which each is known to be complete without one."""
    kinds = {_kind(data[start], codec) for start in _starts(data, length)}
    return bool(kinds) and _NO_PICTURE[codec].issuperset(kinds)


def _kind(head: int, codec: str) -> int:
    return head & 0x1F if codec == "h264" else head >> 1 & 0x3F


def _units(data: bytes, starts: Iterable[int]) -> Units:
    for start in starts:
        yield _kind(data[start], "h264"), data[start + 1 : start + 1 + _MOST_READ]


def _starts(data: bytes, length: int) -> list[int]:
    """Where the units of a packet start; nowhere where it does not consist of units."""
    starts: list[int] = []
    at = 0
    if length:
        while at + length < len(data):
            starts.append(at + length)
            at += length + int.from_bytes(data[at : at + length])
        return starts if at == len(data) else []
    at = data.find(_START_CODE)
    if at < 0 or any(data[:at]):
        return []
    while at >= 0 and at + 3 < len(data):
        starts.append(at + 3)
        at = data.find(_START_CODE, at + 3)
    return starts
