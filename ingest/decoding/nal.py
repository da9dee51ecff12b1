"""Packets that hold no picture, joined to the next one that does.

Some muxers store what belongs to a picture, such as parameter sets, messages (SEI) or a delimiter,
as a packet of its own. A decoder then has nothing to show, and reports that as an error.
"""

from collections.abc import Iterable, Iterator

from av.packet import Packet
from av.video.stream import VideoStream

_NO_PICTURE = {
    "h264": frozenset({6, 7, 8, 9, 10, 11, 12, 13, 15}),
    "hevc": frozenset(range(32, 41)),
}
"""Kinds of units that are complete without a picture."""
_LENGTH_AT = {"h264": 4, "hevc": 21}
"""Where the header that mp4 and Matroska keep has the bytes of a length, less one."""
_LARGEST = 4096
"""Bytes of what is looked at; pictures that small cost little to look at."""
_START_CODE = b"\0\0\1"


def join_to_pictures(packets: Iterable[Packet], stream: VideoStream) -> Iterator[Packet]:
    """Packets of a stream, where what holds no picture has become a part of the one after it."""
    codec = stream.codec_context.name
    if codec not in _NO_PICTURE:
        yield from packets
        return
    extradata = stream.codec_context.extradata or b""
    has_lengths = len(extradata) > _LENGTH_AT[codec] and extradata[0] == 1
    length = (extradata[_LENGTH_AT[codec]] & 3) + 1 if has_lengths else 0
    ahead: list[bytes] = []
    for packet in packets:
        if packet.size < _LARGEST and _holds_no_picture(bytes(packet), codec, length):
            ahead.append(bytes(packet))
        elif ahead and not packet.is_discard:
            yield _joined([*ahead, bytes(packet)], packet)
            ahead = []
        else:
            yield packet


def padded(data: bytes) -> Packet:
    """A packet with the zeros after it that decoders read; that of `Packet(data)` has none."""
    packet = Packet(len(data))
    packet.update(data)
    return packet


def _joined(parts: list[bytes], packet: Packet) -> Packet:
    joined = padded(b"".join(parts))
    joined.pts, joined.dts, joined.duration = packet.pts, packet.dts, packet.duration
    joined.time_base, joined.stream = packet.time_base, packet.stream
    joined.is_keyframe, joined.is_corrupt = packet.is_keyframe, packet.is_corrupt
    return joined


def _holds_no_picture(data: bytes, codec: str, length: int) -> bool:
    """Whether a packet consists of units of which each is known to be complete without one."""
    kinds = _kinds(data, codec, length)
    return bool(kinds) and _NO_PICTURE[codec].issuperset(kinds)


def _kinds(data: bytes, codec: str, length: int) -> set[int]:
    """Kinds of the units of a packet; none where it does not consist of units."""
    heads: list[int] = []
    at = 0
    if length:
        while at + length < len(data):
            heads.append(data[at + length])
            at += length + int.from_bytes(data[at : at + length])
        if at != len(data):
            return set()
    else:
        at = data.find(_START_CODE)
        if at < 0 or any(data[:at]):
            return set()
        while at >= 0 and at + 3 < len(data):
            heads.append(data[at + 3])
            at = data.find(_START_CODE, at + 3)
    return {head & 0x1F if codec == "h264" else head >> 1 & 0x3F for head in heads}
