"""SRT through the `ffmpeg` command: PyAV's wheels are built without it.

camera ── SRT ──▶ ffmpeg -c copy ── MPEG-TS, a pipe ──▶ PyAV
"""

import atexit
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ingest.errors import VideoError
from ingest.live.devices import Device

_END_SECONDS = 5.0


@contextmanager
def relayed(device: Device, error: Exception) -> Iterator[str]:
    """What to open instead of a device whose protocol PyAV lacks; the relay ends on leaving.

    Raises VideoError where the `ffmpeg` command is not there, or lacks the protocol as well.
    """
    command = shutil.which("ffmpeg")
    if command is None or not _speaks(command, device.kind):
        found = "is not installed" if command is None else "lacks it as well"
        raise VideoError(
            f"{device}: this build of PyAV has no {device.kind}, and the ffmpeg command {found}; "
            "install an ffmpeg that has it, such as that of your Linux distribution"
        ) from error
    options = [word for key, value in device.options.items() for word in (f"-{key}", value)]
    copying = ["-map", "0:v:0", "-c", "copy", "-copyts", "-flush_packets", "1", "-f", "mpegts"]
    with subprocess.Popen(
        [command, "-nostdin", "-loglevel", "quiet", *options, "-i", device.url, *copying, "pipe:1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this program, which then ends the relay
    ) as process:
        atexit.register(process.kill)  # a thread that hangs in its pipe never comes to the end
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        os.set_blocking(descriptor, False)  # so that FFmpeg keeps its time limits while it reads
        try:
            yield f"pipe:{descriptor}"
        finally:
            process.kill()
            process.wait(_END_SECONDS)
            atexit.unregister(process.kill)


def _speaks(command: str, protocol: str) -> bool:
    listed = subprocess.run(
        [command, "-hide_banner", "-protocols"], capture_output=True, text=True, check=False
    )
    return protocol in listed.stdout.split()
