"""Opening a device: what each kind needs of FFmpeg, and one clear line where it does not open."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError, ProtocolNotFoundError
from av.format import Flags
from av.stream import Discard
from av.video.stream import VideoStream

from ingest.decoding.container import video_stream
from ingest.errors import VideoError
from ingest.live.clock import Times
from ingest.live.devices import Device
from ingest.live.relay import relayed
from ingest.video.remote import FILE_SCHEMES

OPEN_SECONDS = 10.0
"""How long a device may take to answer, and again to show what it sends."""
SILENT_SECONDS = 5.0
"""A device that sends nothing for so long is taken for lost."""
SEGMENT_SECONDS = 30.0
"""The same for HLS: it comes in segments of up to ten seconds, each once it is whole."""

_COUNTED = {"yuv4mpegpipe"}
"""Formats whose header has a rate, and whose frames have no times: FFmpeg counts them."""
_UNTIMED = {"image2pipe", "jpeg_pipe", "png_pipe"}
"""Formats with neither, of which FFmpeg does not say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A device that was opened."""

    container: InputContainer
    silent_seconds: float
    """How long it may send nothing before it is taken for lost."""

    @property
    def times(self) -> Times:
        """What is known of when its frames were."""
        found = self.container.format
        if int(found.flags) & Flags.no_timestamps.value or found.name in _UNTIMED:
            return "arrival"
        return "counted" if found.name in _COUNTED else "own"

    def video(self, name: str) -> VideoStream:
        """Its moving pictures, and it is asked for nothing else; VideoError where it has none."""
        chosen = video_stream(self.container, name)
        for stream in self.container.streams:
            if stream.index != chosen.index:
                stream.discard = Discard.all  # so other sizes of HLS are not downloaded
        return chosen


@contextmanager
def connected(device: Device) -> Iterator[Connected]:
    """Open a device; VideoError where it cannot be. Reading from it raises ExitError in silence."""
    with ExitStack() as stack:
        try:
            found = _open(device, device.url, stack)
        except ProtocolNotFoundError as error:
            found = _open(device, stack.enter_context(relayed(device, error)), stack)
        _check_live(device, found.container)
        yield found


def _open(device: Device, url: str, stack: ExitStack) -> Connected:
    """Open a device at a place; ProtocolNotFoundError where FFmpeg cannot speak to it."""
    silent_seconds = math.inf if device.is_pipe else SILENT_SECONDS
    while True:
        try:
            container = av.open(
                url,
                format=device.format,
                options=dict(device.options),
                timeout=None if device.is_pipe else (OPEN_SECONDS, silent_seconds),
                metadata_errors="replace",
            )
        except ProtocolNotFoundError:
            raise
        except (FFmpegError, ValueError) as error:
            remedy = _REMEDIES.get(device.kind, _network_remedy)(device)
            raise VideoError(f"{device}: {reason(error)}; {remedy}") from error
        stack.enter_context(closing(container))
        if container.format.name != "hls" or silent_seconds == SEGMENT_SECONDS:
            return Connected(container=container, silent_seconds=silent_seconds)
        container.close()  # its limits are those of when it was opened
        silent_seconds = SEGMENT_SECONDS


def _check_live(device: Device, container: InputContainer) -> None:
    """Refuse what lies on a web server and has an end: it would be read faster than it plays."""
    if device.kind in FILE_SCHEMES and (container.duration or 0) > 0:
        seconds = (container.duration or 0) / av.time_base
        raise VideoError(
            f"{device}: a recording of {seconds:.1f} s, not live; use `setcon ingest` for it"
        )


def reason(error: Exception) -> str:
    """Why a device is not there, in a few words."""
    if isinstance(error, ExitError):
        return "it sends nothing"
    if isinstance(error, EOFError):
        return "it hung up at once"
    return (error.strerror if isinstance(error, FFmpegError) else None) or str(error)


def _v4l2_remedy(device: Device) -> str:
    if not Path(device.url).exists():
        cameras = ", ".join(sorted(map(str, Path("/dev").glob("video*"))))
        return f"there are: {cameras}" if cameras else "this machine has no cameras"
    return "is it a camera, free and yours to read (group video)? and is every --option right?"


def _x11grab_remedy(device: Device) -> str:
    return "is there such a screen, as :0.0 or :0.0+X,Y, and is every --option right?"


def _lavfi_remedy(device: Device) -> str:
    return "is it a filter graph that begins with a source, such as testsrc2,realtime?"


def _rtp_remedy(device: Device) -> str:
    return "is it sending MPEG-TS there? name a FILE.sdp that describes anything else"


def _pipe_remedy(device: Device) -> str:
    return "write MPEG-TS, y4m or another format that FFmpeg reads into it"


def _network_remedy(device: Device) -> str:
    return "is it sending there, and is every --option right?"


_REMEDIES: dict[str, Callable[[Device], str]] = {
    "v4l2": _v4l2_remedy,
    "x11grab": _x11grab_remedy,
    "lavfi": _lavfi_remedy,
    "rtp": _rtp_remedy,
    "stdin": _pipe_remedy,
    "fifo": _pipe_remedy,
}
