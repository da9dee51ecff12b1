"""What a word for a camera means, and opening it: everything else is a source that can go silent.

v4l2:/dev/video0              a camera of this machine
rtsp://camera/stream          a camera on the network
tcp://host:port  udp://:port  MPEG-TS; tcp://:port?listen=1 waits for the sender
x11grab::0.0                  a screen
lavfi:testsrc2,realtime       a picture that FFmpeg draws
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError

from ingest.errors import VideoError
from ingest.printable import without_secrets

OPEN_SECONDS = 10.0
"""How long a device may take to answer, and again to show what it sends."""
SILENT_SECONDS = 5.0
"""A device that sends nothing for so long is taken for lost."""

_LOCAL = {"v4l2": "v4l2", "x11grab": "x11grab", "lavfi": "lavfi"}
_NETWORK = {"rtsp": None, "rtsps": None, "tcp": "mpegts", "udp": "mpegts"}
_DEFAULTS = {
    "rtsp": {"rtsp_transport": "tcp"},  # over UDP every lost datagram smears some frames
    "rtsps": {"rtsp_transport": "tcp"},
    "udp": {"overrun_nonfatal": "1"},  # what is lost shows as a gap, and the stream goes on
}
_WORDS = "v4l2:/dev/video0, rtsp://…, tcp://…, udp://…, lavfi:… or x11grab:…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One camera, or another device that acts as one."""

    kind: str
    url: str = field(repr=False)
    """What FFmpeg opens; may hold a password."""
    format: str | None
    """FFmpeg's name of the device or container; None where the address says it."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """FFmpeg's options."""

    def __str__(self) -> str:
        """The word, for people: without the password."""
        if self.kind in _LOCAL:
            return f"{self.kind}:{self.url}"
        return without_secrets(self.url)

    def recording_name(self, now: datetime) -> str:
        """A name for what is captured from `now` on: `video0-20260101-120000`."""
        if self.kind == "v4l2":
            stem = Path(self.url).name
        elif self.kind in _LOCAL:
            stem = self.kind
        else:
            address = without_secrets(self.url).rpartition("@")[2]
            stem = re.sub(r"^[^/]*//|[?#].*", "", address)
        plain = re.sub(r"[^\w.]+", "-", stem)[:150].strip("-_.")
        return f"{plain or self.kind}-{now:%Y%m%d-%H%M%S}"


def parse_device(word: str, options: Sequence[str] = ()) -> Device:
    """Read the word for a device, and `KEY=VALUE` options for FFmpeg; VideoError for others."""
    kind, _, rest = word.partition(":")
    if kind in _LOCAL and rest:
        url, container = rest, _LOCAL[kind]
    elif kind in _NETWORK and rest.startswith("//") and rest != "//":
        url, container = word, _NETWORK[kind]
    else:
        raise VideoError(f"{without_secrets(word)}: not a device; use {_WORDS}")
    given: dict[str, str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise VideoError(
                f"--option {without_secrets(option)}: not KEY=VALUE, such as framerate=30"
            )
        given[key] = value
    return Device(kind=kind, url=url, format=container, options=_DEFAULTS.get(kind, {}) | given)


def connect(device: Device) -> InputContainer:
    """Open a device; VideoError where it cannot be. Reading from it raises ExitError in silence."""
    try:
        return av.open(
            device.url,
            format=device.format,
            options=dict(device.options),
            timeout=(OPEN_SECONDS, SILENT_SECONDS),
            metadata_errors="replace",
        )
    except (FFmpegError, ValueError) as error:
        remedy = _REMEDIES.get(device.kind, _network_remedy)(device)
        raise VideoError(f"{device}: {reason(error)}; {remedy}") from error


def reason(error: Exception) -> str:
    """Why a device is not there, in a few words."""
    if isinstance(error, ExitError):
        return "it sends nothing"
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


def _network_remedy(device: Device) -> str:
    return "is it sending there, and is every --option right?"


_REMEDIES: dict[str, Callable[[Device], str]] = {
    "v4l2": _v4l2_remedy,
    "x11grab": _x11grab_remedy,
    "lavfi": _lavfi_remedy,
}
