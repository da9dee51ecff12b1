"""Commands of a server: capture, serve, keygen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terminal.options import (
    allow_option,
    codec_option,
    holdout_option,
    keys_option,
    live_size_option,
    record_settings,
    recordings_option,
    warn_of_several_sizes,
)
from terminal.pages import watched_page
from terminal.parameters import LOCATION, Duration, Finite
from terminal.progress import progress_line
from terminal.recordings import (
    breaks_text,
    capture_parts,
    footage_text,
    lost_parts,
)
from terminal.runs import (
    server_parts,
)

if TYPE_CHECKING:
    from ingest.live.capture import Captured
    from ingest.store.records import Size
    from online.queue.keys import ServerKeys


@click.command()
@click.argument("device")
@click.argument("store", type=LOCATION)
@click.option("--name", help="Name of the recording.  [default: the device and the time]")
@live_size_option
@click.option(
    "--fps",
    type=Finite(0, min_open=True),
    help="Keep at most this many frames per second.",
)
@click.option(
    "--seconds", type=Finite(0, min_open=True), help="Stop after this long.  [default: never]"
)
@click.option(
    "--keep",
    "keep_seconds",
    type=Duration(),
    metavar="DURATION",
    help="Delete footage older than this (90m, 12h, 7d; minimum 10m).  [default: keep all]",
)
@codec_option
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option for FFmpeg, such as video_size=1280x720; may be given several times. FFmpeg "
    "ignores unknown keys.",
)
@click.option(
    "--serve",
    "address",
    metavar="ADDR",
    help="Also serve STORE, at tcp://127.0.0.1:PORT or ipc://PATH.",
)
@keys_option
@allow_option
@click.option(
    "--watch",
    "watched",
    is_flag=True,
    help="Also show the newest frame and the counters on a live page, and print its address.",
)
def capture(
    device: str,
    store: str,
    name: str | None,
    size: Size,
    fps: float | None,
    seconds: float | None,
    keep_seconds: float | None,
    codec: Any,
    options: tuple[str, ...],
    address: str | None,
    keys: Path | None,
    allow: Path | None,
    watched: bool,
) -> None:
    """Record DEVICE into STORE, live, until Ctrl-C.

    Ctrl-C commits what has come, and completes the recording. A second one, a second or more
    later, ends at once: what was committed stays, and the same --name continues the recording.

    A device is /dev/video0 or 0, rtsp://HOST/PATH, http://HOST/PATH for MJPEG or HLS, srt://, rtmp://
    or rtp://, udp://HOST:PORT or tcp://HOST:PORT for MPEG-TS, FILE.sdp, - for standard input, a
    named pipe, x11grab::0.0 or lavfi:GRAPH, such as lavfi:testsrc2,realtime: without the filter
    realtime a graph is drawn as fast as it can be. If the connection is lost, it is retried until
    it succeeds; where standard input ends, so does the capture.

    The progress line shows how long frames take from arrival to disk (behind), how many were
    dropped because they were damaged or the disk was too slow (dropped), and how often the camera
    was connected to again (reconnects).
    """
    from ingest.live.camera import Camera
    from ingest.live.capture import LEAST_KEPT_SECONDS, live_store
    from ingest.live.capture import capture as capture_from
    from ingest.live.devices import parse_device
    from online.stop import StopSignals

    if address is None and (keys or allow):
        raise click.UsageError("--keys and --allow are for --serve ADDR")
    if keep_seconds is not None and keep_seconds < LEAST_KEPT_SECONDS:
        raise click.UsageError(f"--keep must be at least {LEAST_KEPT_SECONDS / 60:g}m")
    server_keys = _server_keys(keys, allow)
    settings = record_settings(size=size, fps=fps, reader="camera")
    source = parse_device(device, options)
    with watched_page(store, wanted=watched), progress_line() as show, StopSignals() as signals:

        def should_stop() -> bool:
            return signals.received is not None

        def observe(captured: Captured) -> None:
            show(*capture_parts(captured))

        with (
            Camera(source, settings, should_stop=should_stop) as camera,
            live_store(store) as opened,
        ):
            if address is None:
                captured = capture_from(
                    camera,
                    opened,
                    name=name,
                    seconds=seconds,
                    keep_seconds=keep_seconds,
                    codec=codec,
                    progress=observe,
                    should_stop=should_stop,
                )
            else:
                from online.capture import capture_and_serve

                captured = capture_and_serve(
                    camera,
                    opened,
                    address,
                    keys=server_keys,
                    ready=lambda at: click.echo(f"serving {opened.location} at {at}"),
                    name=name,
                    seconds=seconds,
                    keep_seconds=keep_seconds,
                    codec=codec,
                    progress=observe,
                    should_stop=should_stop,
                    waiting=lambda: click.echo(
                        "waiting for trainers to learn from the rest and to probe; Ctrl-C stops",
                        err=True,
                    ),
                )
    click.echo(
        f"{captured.name}: captured, {footage_text(captured.commit)}, "
        f"{breaks_text(captured.commit)}, {', '.join(lost_parts(captured))}"
    )
    warn_of_several_sizes(store)


@click.command()
@click.argument("store", type=LOCATION)
@click.option(
    "--bind",
    "address",
    default="tcp://127.0.0.1:5555",
    show_default=True,
    metavar="ADDR",
    help="tcp://127.0.0.1:PORT or ipc://PATH; tcp://0.0.0.0:PORT for other machines, with keys.",
)
@keys_option
@allow_option
@click.option(
    "--order",
    type=click.Choice(["stream", "shuffled"]),
    default="stream",
    show_default=True,
    help="Order for trainers that request none: time order, or a block shuffle.",
)
@click.option("--follow", is_flag=True, help="Keep serving footage as it is added.")
@recordings_option
@holdout_option
def serve(
    store: str,
    address: str,
    keys: Path | None,
    allow: Path | None,
    order: Any,
    follow: bool,
    recordings: str,
    holdout: float,
) -> None:
    """Serve the clips of STORE to trainers, until Ctrl-C.

    The progress line counts the connected trainers, the clips and megabytes sent, the megabytes
    that may still be sent (credit), requests for single frames by probes and resumed runs
    (fetches), connections so far (sessions), trainers that vanished (lost) or sent nothing for
    three seconds (hung), and messages that are not valid in this version (rejected).
    """
    from ingest.open import open_store
    from online.allocator import keep_memory_together
    from online.queue.server import serve as serve_store
    from online.queue.stream import ServeConfig

    server_keys = _server_keys(keys, allow)
    config = ServeConfig(order=order, follow=follow, recordings=recordings, holdout=holdout)
    opened = open_store(store)
    keep_memory_together()
    with progress_line(says_end=False) as show:
        counters = serve_store(
            opened,
            address,
            config=config,
            keys=server_keys,
            ready=lambda at: click.echo(f"serving {opened.location} at {at}"),
            report=lambda counters: show(*server_parts(counters)),
        )
    click.echo(", ".join(server_parts(counters)))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def keygen(folder: Path) -> None:
    """Make keys in DIR, for a server or for a trainer.

    A server that other machines connect to needs keys, and so does each trainer on another
    machine. Keep DIR/NAME.secret on this machine; only its owner can read it. Copy DIR/NAME.public
    to the other machine: a trainer's key for --allow, a server's for --server-key.
    """
    from online.queue.keys import make_keys

    click.echo(f"public key, to be copied to the other machine: {make_keys(folder)}")


def _server_keys(keys: Path | None, allow: Path | None) -> ServerKeys | None:
    if keys is None and allow is None:
        return None
    from online.queue.keys import ServerKeys

    if keys is None or allow is None:
        raise click.UsageError("--keys DIR and --allow PATH must be given together")
    return ServerKeys(keys, allow)


COMMANDS = (capture, serve, keygen)
