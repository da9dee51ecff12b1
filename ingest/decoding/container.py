"""Opening, seeking and reading a file with PyAV, with every failure as one clear line."""

import logging
import re
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.addresses import scheme_of, without_secrets
from ingest.decoding.losses import Losses, NoLosses, marked
from ingest.decoding.nal import join_to_pictures
from ingest.errors import VideoError

log = logging.getLogger(__name__)

_SAMPLED_PACKETS = 250
_OVER_HTTP = {
    "rw_timeout": "30000000",
    "reconnect": "1",
    "reconnect_delay_max": "10",
    "multiple_requests": "1",
}
"""Options of FFmpeg: give a silent server up after 30 s, go on where a connection broke, and keep
connections. Where a server closes one without a word, the first packet behind an index at the end
of a file would be lost."""
_BUNDLE = "ca-certificates.crt"
"""File of all trusted certificates, where they are in a folder."""
_MOST_WITHOUT_KEY = 1000
"""Packets among which there is a key frame, if a stream marks any."""
_HEADERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"}
_DURATION_TAG = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d*)?)")


def open_container(path: str) -> InputContainer:
    """Open a file; VideoError says what is wrong with it."""
    try:
        options = _OVER_HTTP | _trusted(path) if _is_remote(path) else None
        container = av.open(path, mode="r", options=options, metadata_errors="replace")
    except FFmpegError as error:
        if _is_remote(path):
            why = f"cannot be read ({error.strerror}); check the address and what is there"
            raise VideoError(f"{path}: {why}") from error
        raise VideoError(f"{path}: {_why_not_open(Path(path), error)}") from error
    if container.format.name == "hls" and container.duration is None:
        container.close()
        raise VideoError(f"{path}: a playlist that still grows; record it with `setcon capture`")
    return container


def video_stream(container: InputContainer, path: str, *, track: int | None = None) -> VideoStream:
    """The track of a number, from 1 on, or else the one that FFmpeg holds to be the main one."""
    tracks = video_tracks(container)
    if not tracks:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(f"{path}: no video stream, only {kinds}; name a file with moving pictures")
    if track is not None and track > len(tracks):
        raise VideoError(
            f"{path}: no video track {track}, it has {len(tracks)}; choose one of them"
        )
    main = container.streams.best("video")
    chosen = next((each for each in tracks if each is main), tracks[0])
    stream = chosen if track is None else tracks[track - 1]
    if stream.codec_context is None:
        raise VideoError(f"{path}: no decoder for its video; re-encode it as H.264")
    return stream


def video_tracks(container: InputContainer) -> list[VideoStream]:
    """All moving pictures of a file; a cover picture of a song does not count."""
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]


def stream_at(container: InputContainer, index: int) -> VideoStream:
    """The moving pictures of an index in their file, in a container opened anew."""
    return next(stream for stream in video_tracks(container) if stream.index == index)


def is_encrypted(path: str, index: int) -> bool:
    """Whether the first packets of a stream carry what is needed to decrypt them."""
    with closing(open_container(path)) as container, suppress(FFmpegError):
        for packet in islice(container.demux(stream_at(container, index)), _SAMPLED_PACKETS):
            if packet.has_sidedata("encryption_info"):
                return True
    return False


def seek(container: InputContainer, stream: VideoStream, pts_ns: int) -> None:
    """Go to the key frame at or before a time, in a file just opened.

    One that cannot seek stays at its start, from where every frame is reached as well.
    """
    if not stream.time_base:
        return
    try:
        container.seek(int(pts_ns / 1_000_000_000 / stream.time_base), stream=stream)
    except FFmpegError as error:
        name, reason = without_secrets(container.name), error.strerror
        log.warning("%s: cannot seek (%s); reading from its start", name, reason)


def time_ns(frame: VideoFrame) -> int | None:
    """Presentation time of a frame in nanoseconds, None where the file does not say."""
    return _to_ns(frame.pts, frame.time_base)


def packet_times_ns(container: InputContainer, stream: VideoStream) -> Iterator[int | None]:
    """Presentation times of all packets that are shown, without decoding, in file order."""
    for packet in shown_packets(container, stream):
        if not packet.is_discard:
            yield packet_ns(packet)


def shown_packets(
    container: InputContainer, stream: VideoStream, losses: Losses | None = None
) -> Iterator[Packet]:
    """Packets of a stream in file order, each with a picture; empty ones would end a decoder.

    Those next to `losses` are marked as corrupt. Raises FFmpegError where the file cannot be read
    on; asking again may continue after it.
    """
    packets = (packet for packet in container.demux(stream) if packet.size)
    return join_to_pictures(marked(packets, losses or NoLosses()), stream)


def up_to_key(container: InputContainer, stream: VideoStream) -> list[Packet]:
    """The first packets of a file just opened, up to the first key frame, if there is one soon."""
    packets: list[Packet] = []
    with suppress(FFmpegError):
        for packet in islice(shown_packets(container, stream), _MOST_WITHOUT_KEY):
            packets.append(packet)
            if packet.is_keyframe:
                break
    return packets


def packet_ns(packet: Packet) -> int | None:
    """Presentation time of a packet in nanoseconds, None where the file does not say."""
    return _to_ns(packet.pts, packet.time_base)


class Stamp(NamedTuple):
    """What a packet that is shown says of itself, in the time base of its stream."""

    pts: int | None
    dts: int | None


def sample(container: InputContainer, stream: VideoStream) -> list[list[Stamp]]:
    """Packets in file order: at the place where a file is, and where it can be seen at once where
    there are others, also at one and two thirds of it.
    """
    samples = [_sample_here(container, stream)]
    if len(stream.index_entries) > _SAMPLED_PACKETS and container.duration:
        for third in (1, 2):
            with suppress(FFmpegError):
                container.seek((container.start_time or 0) + third * container.duration // 3)
                samples.append(_sample_here(container, stream))
    return samples


def steps_ns(samples: list[list[Stamp]], time_base: Fraction | None) -> list[int]:
    """Times between shown frames. They show whether the rate is steady."""
    steps: list[int] = []
    for stamps in samples:
        times = [_to_ns(stamp.pts, time_base) for stamp in stamps]
        known = sorted(time for time in times if time is not None)
        steps += [after - before for before, after in pairwise(known)]
    return steps


def promised_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """How long the header says that a video is, by the shortest of what it says.

    None where there is none, as in MPEG-TS: its length is guessed from what is there.
    """
    if container.format.name not in _HEADERS:
        return None
    said = [container.duration / av.time_base] if container.duration else []
    if stream.duration and stream.time_base:
        said.append(float(stream.duration * stream.time_base))
    if tag := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):  # of one track
        hours, minutes, seconds = tag.groups()
        said.append(3600 * int(hours) + 60 * int(minutes) + float(seconds))
    return min(said, default=None)


def _sample_here(container: InputContainer, stream: VideoStream) -> list[Stamp]:
    stamps: list[Stamp] = []
    with suppress(FFmpegError):
        for packet in islice(shown_packets(container, stream), _SAMPLED_PACKETS):
            if not packet.is_discard:
                stamps.append(Stamp(packet.pts, packet.dts))
    return stamps


def _to_ns(pts: int | None, time_base: Fraction | None) -> int | None:
    if pts is None or not time_base:
        return None
    numerator, denominator = time_base.numerator, time_base.denominator
    return (pts * numerator * 1_000_000_000 + denominator // 2) // denominator


def _trusted(address: str) -> dict[str, str]:
    """Options that check who a server is, by what Python trusts; FFmpeg would not check at all.

    Nothing where no file holds trusted certificates: then only Python's own request has checked.
    """
    if scheme_of(address) != "https":
        return {}
    paths = ssl.get_default_verify_paths()
    bundles = [paths.cafile, f"{paths.capath}/{_BUNDLE}"]
    found = next((file for file in bundles if file and Path(file).is_file()), None)
    return {"tls_verify": "1", "ca_file": found} if found else {}


def _is_remote(path: str) -> bool:
    return scheme_of(path) in ("http", "https")


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
