"""What a word for a camera means: everything is a source that can go silent.

/dev/video0  0  v4l2:/dev/…   a camera of this machine
rtsp://camera/stream          a camera on the network
http://camera/stream          MJPEG as web cameras send it, HLS, or a container that has no end
srt://host:port               MPEG-TS; srt://:port?mode=listener waits for the sender
rtmp://host/app/stream        FLV; with --option listen=1 waits for the sender
tcp://host:port  udp://:port  MPEG-TS; tcp://:port?listen=1 waits for the sender
rtp://:port  FILE.sdp         MPEG-TS in RTP; whatever the file describes
-  FIFO                       what another program writes, such as MPEG-TS or y4m
x11grab::0.0                  a screen
lavfi:testsrc2,realtime       a picture that FFmpeg draws
"""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from ingest.addresses import CAMERA_FILE, LOCAL_KINDS, without_secrets
from ingest.errors import VideoError
from ingest.video.remote import FILE_SCHEMES, LIVE_SCHEMES

_CONTAINERS = {"tcp": "mpegts", "udp": "mpegts", "srt": "mpegts", "sdp": "sdp"} | {
    kind: kind for kind in LOCAL_KINDS
}
_SOON = {"analyzeduration": "2000000"}
"""In microseconds: FLV without sound would be looked through for the sound that it announces."""
_WEB = _SOON | {"live_start_index": "-1"}
"""Of HLS the newest segment first: what a reconnect repeats of the footage is short."""
_DEFAULTS = {
    "rtsp": {"rtsp_transport": "tcp"},  # over UDP every lost datagram smears some frames
    "rtsps": {"rtsp_transport": "tcp"},
    "udp": {"overrun_nonfatal": "1"},  # what is lost shows as a gap, and the stream goes on
    "sdp": {"protocol_whitelist": "file,rtp,udp"},
    "srt": _SOON,
    "rtmp": _SOON,
    "rtmps": _SOON,
    "http": _WEB,
    "https": _WEB,
}
MAX_PORT = 65535
_WORDS = (
    "/dev/video0 or 0, rtsp://…, http://…, srt://…, rtmp://…, rtp://…, udp://…, tcp://…, FILE.sdp, "
    "- for standard input, lavfi:… or x11grab:…"
)


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

    @property
    def is_pipe(self) -> bool:
        """Whether another program of this machine writes it, which may pause for as long as it
        likes.
        """
        return self.kind in ("stdin", "fifo")

    @property
    def comes_once(self) -> bool:
        """Whether its end is the end: it cannot be connected to again."""
        return self.kind == "stdin"

    def __str__(self) -> str:
        """The word, for people: without the password."""
        if self.kind == "stdin":
            return "-"
        if self.kind in LOCAL_KINDS:
            return f"{self.kind}:{self.url}"
        return without_secrets(self.url)

    def recording_name(self, now: datetime) -> str:
        """A name for what is captured from `now` on: `video0-20260101-120000`."""
        if self.kind in ("v4l2", "fifo", "sdp"):
            stem = Path(self.url).name.removesuffix(".sdp")
        elif self.kind in (*LOCAL_KINDS, "stdin"):
            stem = self.kind
        else:
            address = without_secrets(self.url).rpartition("@")[2]
            stem = re.sub(r"^[^/]*//|[?#].*", "", address)
        plain = re.sub(r"[^\w.]+", "-", stem)[:150].strip("-_.")
        return f"{plain or self.kind}-{now:%Y%m%d-%H%M%S}"


def parse_device(word: str, options: Sequence[str] = ()) -> Device:
    """Read the word for a device, and `KEY=VALUE` options for FFmpeg; VideoError for others."""
    kind, url = _kind_and_url(word)
    given: dict[str, str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise VideoError(
                f"--option {without_secrets(option)}: not KEY=VALUE, such as framerate=30"
            )
        given[key] = value
    return Device(
        kind=kind, url=url, format=_CONTAINERS.get(kind), options=_DEFAULTS.get(kind, {}) | given
    )


def _kind_and_url(word: str) -> tuple[str, str]:
    if word == "-":
        _check_standard_input()
        return "stdin", "pipe:0"
    if word.isascii() and word.isdecimal():
        return "v4l2", f"/dev/video{word}"
    kind, _, rest = word.partition(":")
    if kind in LOCAL_KINDS and rest:
        return kind, rest
    scheme = kind.lower()
    if scheme in LIVE_SCHEMES | FILE_SCHEMES and rest.startswith("//") and rest != "//":
        _check_port(word)
        return scheme, scheme + word[len(kind) :]
    return _kind_of_file(word), word


def _check_port(address: str) -> None:
    """Refuse what FFmpeg would try again and again."""
    port = re.search(r":(\d+)$", urlsplit(address).netloc)
    if port is not None and int(port[1]) > MAX_PORT:
        raise VideoError(
            f"{without_secrets(address)}: port {port[1]} does not exist; the last one is {MAX_PORT}"
        )


def _kind_of_file(word: str) -> str:
    path = Path(word)
    if word.startswith(CAMERA_FILE) or path.is_char_device():
        return "v4l2"
    if path.is_fifo():
        return "fifo"
    if path.suffix.lower() == ".sdp" and path.is_file():
        return "sdp"
    if word and path.exists():
        raise VideoError(f"{word}: not a device but a file or folder; use `setcon ingest` for it")
    raise VideoError(f"{without_secrets(word)}: not a device; use {_WORDS}")


def _check_standard_input() -> None:
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        mode = 0  # closed
    if stat.S_ISREG(mode):
        raise VideoError("-: standard input is a file; name it to `setcon ingest`")
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise VideoError("-: standard input is not a pipe; pipe MPEG-TS, y4m or the like into it")
