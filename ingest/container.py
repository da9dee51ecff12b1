"""Opening, seeking and decoding a file with PyAV, with every failure as one clear line."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.errors import VideoError
from ingest.timeline import Timeline

log = logging.getLogger(__name__)

MAX_BAD_PACKETS = 300
"""So many packets in a row that do not decode mean that the rest is lost."""


def open_container(path: str) -> InputContainer:
    """Open a file; VideoError says what is wrong with it."""
    try:
        return av.open(path, mode="r")
    except FFmpegError as error:
        raise VideoError(f"{path}: {_why_not_open(Path(path), error)}") from error


def video_stream(container: InputContainer, path: str) -> VideoStream:
    """The first moving picture in a file; a cover picture of a song does not count."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError(f"{path}: no decoder for its video; re-encode it as H.264")
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise VideoError(f"{path}: no video stream, only {kinds}; name a file with moving pictures")


def seek(container: InputContainer, stream: VideoStream, pts_ns: int) -> None:
    """Go to the key frame at or before a time, in a file just opened.

    One that cannot seek stays at its start, from where every frame is reached as well.
    """
    if not stream.time_base:
        return
    try:
        container.seek(int(pts_ns / 1_000_000_000 / stream.time_base), stream=stream)
    except FFmpegError as error:
        reason = error.strerror
        log.warning("%s: cannot seek (%s); reading from its start", container.name, reason)


def time_ns(frame: VideoFrame) -> int | None:
    """Presentation time of a frame in nanoseconds, None where the file does not say."""
    return _to_ns(frame.pts, frame.time_base)


def packet_times_ns(container: InputContainer, stream: VideoStream) -> list[int | None]:
    """Presentation times of all packets that are shown, without decoding, in file order."""
    return [
        _to_ns(packet.pts, packet.time_base)
        for packet in container.demux(stream)
        if packet.size and not packet.is_discard
    ]


def decode(
    container: InputContainer, stream: VideoStream, path: str, timeline: Timeline
) -> Iterator[VideoFrame]:
    """Decode all frames; packets that do not decode are told to `timeline` and passed over."""
    bad = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except FFmpegError as error:
            timeline.corrupt_packet()
            bad += 1
            if bad >= MAX_BAD_PACKETS:
                raise VideoError(
                    f"{path}: {bad} packets in a row did not decode ({error.strerror}) after "
                    f"{timeline.counters.decoded} frames; the rest is lost: repair or re-encode it"
                ) from error
            packets = container.demux(stream)  # an error ends the iterator, not the file
            continue
        if packet is None:
            return
        if frames:
            bad = 0
        yield from frames


def _to_ns(pts: int | None, time_base: Fraction | None) -> int | None:
    if pts is None or not time_base:
        return None
    numerator, denominator = time_base.numerator, time_base.denominator
    return (pts * numerator * 1_000_000_000 + denominator // 2) // denominator


def _why_not_open(path: Path, error: FFmpegError) -> str:
    if not path.exists():
        return "no such file; check the path"
    if path.is_dir():
        return "a folder, not a video; name the files in it"
    if not isinstance(error, InvalidDataError):
        return f"cannot be opened ({error.strerror}); check its rights"
    if path.stat().st_size == 0:
        return "the file is empty; copy it again"
    if _is_mp4_without_index(path):
        return "cut before its index (no moov box); copy it again whole, or repair it with untrunc"
    return f"not a video that FFmpeg can read ({error.strerror}); name a video file"


def _is_mp4_without_index(path: Path) -> bool:
    """Walk the top-level boxes: 4 bytes of size, 4 of kind, and a longer size after a 1."""
    end, position, kinds = path.stat().st_size, 0, []
    with path.open("rb") as file:
        while position + 8 <= end and len(kinds) < 10_000:
            file.seek(position)
            head = file.read(16)
            size, kind = int.from_bytes(head[:4]), head[4:8]
            size = int.from_bytes(head[8:]) if size == 1 else size
            kinds.append(kind)
            if size < 8:
                break
            position += size
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds
