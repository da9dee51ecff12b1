"""setcon on the command line: parse, call, print, exit code. Everything else lives in the packages.

Imports of torch and of whatever needs it stay inside the commands that do, so that ``ingest``,
``capture``, ``info`` and ``serve`` start fast.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import msgspec

from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.capture import Captured
    from ingest.recorder import Progress
    from ingest.store import CommitRecord, RecordSettings
    from ingest.verify import Verified, VerifyProgress
    from online.clock import Spent
    from online.config import RunConfig
    from online.scores import Evaluation, MaskScores, ReconstructionScores
    from online.security import ServerKeys, TrainerKeys
    from online.server import ServerCounters
    from online.session import Outcome
    from online.status import Status
    from online.transfer import Continual

NOTHING_NEW_STEPS = 100
"""Since the last new footage, after which it is said how long ago that was."""
PLAIN_SECONDS = 5.0
"""Where there is no terminal to redraw a line on, one is printed this often."""


class _Group(click.Group):
    """The one place where an error becomes one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("stopped; run the same command again", err=True)
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            if isinstance(error, _known_errors()):
                _fail(error)
            if isinstance(error, OSError):
                _fail(f"{error.filename or 'input/output'}: {error.strerror or error}")
            raise


class _Finite(click.FloatRange):
    """A number in a range; nan lies in every one of click's, and inf in the open ones."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class _Duration(click.ParamType):
    """A length of time with its unit, as 90m or 12h; seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", value.strip())
        if found is None:
            self.fail(f"{value!r} is no length of time; write it as 90m, 12h or 7d", param, ctx)
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Log what libraries do, to stderr.")
@click.version_option(package_name="setcon")
def main(verbose: bool) -> None:
    """Learn objects from hours of video while it streams."""
    # read once, when torch loads OpenMP: threads that spin at a barrier keep the one they wait for
    # off its core, which makes a step ten times slower beside other work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s"
    )
    if verbose:
        import av.logging

        # FFmpeg prints by itself: through Python's logging its threads would wait for Python's lock
        av.logging.restore_default_callback()
        av.logging.set_libav_level(av.logging.INFO)


size_option = click.option(
    "--size",
    type=click.IntRange(1, 8192),
    default=128,
    show_default=True,
    help="Side of the stored square frames, in pixels.",
)
holdout_option = click.option(
    "--holdout",
    type=_Finite(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of each recording that is never trained on: its end, or a camera's minutes.",
)
recordings_option = click.option(
    "--recordings",
    metavar="GLOB",
    default="*",
    show_default=True,
    help="Recordings to use, by name.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, such as optimizer.learning_rate=1e-3; `setcon presets NAME` prints all.",
)
keys_option = click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="This side's keys, from `setcon keygen`; other machines need them.",
)
allow_option = click.option(
    "--allow",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Public keys of the trainers that are let in: a .public file, or a folder of them.",
)


@main.command("ingest")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("store", type=click.Path(path_type=Path))
@size_option
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "stretch"]),
    default="crop",
    show_default=True,
    help="How an oblong frame becomes square.",
)
@click.option(
    "--fps",
    type=_Finite(0, min_open=True),
    help="Keep at most this many frames per second.",
)
@click.option(
    "--reader", type=click.Choice(["auto", "pyav", "decord"]), default="auto", show_default=True
)
@click.option(
    "--format",
    "store_format",
    type=click.Choice(["zarr", "h5"]),
    help="Of a new store.  [default: zarr]",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Recordings ingested at once.",
)
@click.option("--overwrite", is_flag=True, help="Replace the recordings made from these sources.")
@click.option(
    "--durable/--no-durable",
    default=True,
    show_default=True,
    help="Wait for the disk at each commit, so that a power cut costs nothing that was committed.",
)
def ingest_command(
    sources: tuple[str, ...],
    store: Path,
    size: int,
    fit: Any,
    fps: float | None,
    reader: str,
    store_format: Any,
    workers: int,
    overwrite: bool,
    durable: bool,
) -> None:
    """Decode SOURCEs once and keep their frames in STORE.

    A source is a video file, a folder or glob of them, a folder of images, or an HDF5 frame
    archive with groups train and test. Running it again continues what was cut off.
    """
    from ingest.jobs import ingest_sources

    settings = _record_settings(size=size, fit=fit, fps=fps, reader=reader)
    with _line() as show:
        outcomes = ingest_sources(
            sources,
            store,
            settings,
            store_format=store_format,
            workers=workers,
            overwrite=overwrite,
            durable=durable,
            progress=lambda progress: show(*_ingest_parts(progress)),
        )
    for outcome in outcomes:
        if outcome.recorded is not None:
            commit, recorded = outcome.recorded.commit, outcome.recorded
            click.echo(
                f"{recorded.name}: {recorded.status}, {_footage_text(commit)}, "
                f"{_breaks_text(commit)}, {recorded.seconds:.1f} s taken"
            )
        if outcome.warning is not None:
            click.secho(f"warning: {outcome.warning}", fg="yellow", err=True)
    if any(outcome.recorded is not None for outcome in outcomes):
        _warn_of_several_sizes(store)
    _exit_if_any(outcome.error for outcome in outcomes if outcome.error is not None)


@main.command()
@click.argument("device")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--name", help="Of the recording.  [default: the device and the time]")
@size_option
@click.option(
    "--fps",
    type=_Finite(0, min_open=True),
    help="Keep at most this many frames per second.",
)
@click.option(
    "--seconds", type=_Finite(0, min_open=True), help="End after this much time.  [default: never]"
)
@click.option(
    "--keep",
    "keep_seconds",
    type=_Duration(),
    metavar="DURATION",
    help="Let go of what is older, as 90m, 12h or 7d; at least 10m.  [default: keep all]",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="FFmpeg's, such as video_size=1280x720; may be given several times. FFmpeg ignores keys "
    "it does not know.",
)
@click.option(
    "--serve",
    "address",
    metavar="ADDR",
    help="Serve STORE meanwhile: tcp://127.0.0.1:PORT or ipc://PATH.",
)
@keys_option
@allow_option
def capture(
    device: str,
    store: Path,
    name: str | None,
    size: int,
    fps: float | None,
    seconds: float | None,
    keep_seconds: float | None,
    options: tuple[str, ...],
    address: str | None,
    keys: Path | None,
    allow: Path | None,
) -> None:
    """Record DEVICE into STORE, live, until Ctrl-C.

    A device is v4l2:/dev/video0, rtsp://HOST/PATH, tcp://HOST:PORT or udp://HOST:PORT for MPEG-TS,
    x11grab::0.0 or lavfi:GRAPH. One that is lost is connected to again, for as long as it takes.

    While it records it says how long frames take from their arrival to the disk (behind), how many
    were damaged or had no room to wait (dropped), and how often the camera came back (reconnects).
    """
    from ingest.camera import Camera
    from ingest.capture import LEAST_KEPT_SECONDS, open_live_store
    from ingest.capture import capture as capture_from
    from ingest.devices import parse_device
    from online.stop import StopSignals

    if address is None and (keys or allow):
        raise click.UsageError("--keys and --allow are for --serve ADDR")
    if keep_seconds is not None and keep_seconds < LEAST_KEPT_SECONDS:
        raise click.UsageError(f"--keep takes {LEAST_KEPT_SECONDS / 60:g}m at the least")
    server_keys = _server_keys(keys, allow)
    settings = _record_settings(size=size, fps=fps, reader="camera")
    source = parse_device(device, options)
    with _line() as show, StopSignals() as signals:

        def should_stop() -> bool:
            return signals.received is not None

        def observe(captured: Captured) -> None:
            show(*_capture_parts(captured))

        with Camera(source, settings, should_stop=should_stop) as camera:
            opened = open_live_store(store)
            if address is None:
                captured = capture_from(
                    camera,
                    opened,
                    name=name,
                    seconds=seconds,
                    keep_seconds=keep_seconds,
                    progress=observe,
                    should_stop=should_stop,
                )
            else:
                from online.live import capture_and_serve

                captured = capture_and_serve(
                    camera,
                    opened,
                    address,
                    keys=server_keys,
                    ready=lambda at: click.echo(f"serving {store} at {at}"),
                    name=name,
                    seconds=seconds,
                    keep_seconds=keep_seconds,
                    progress=observe,
                    should_stop=should_stop,
                    waiting=lambda: click.echo(
                        "waiting until trainers have learned from the rest and probed; Ctrl-C "
                        "leaves",
                        err=True,
                    ),
                )
    click.echo(
        f"{captured.name}: captured, {_footage_text(captured.commit)}, "
        f"{_breaks_text(captured.commit)}, {', '.join(_lost_parts(captured))}"
    )
    _warn_of_several_sizes(store)


@main.command()
@click.argument("store", type=click.Path(path_type=Path))
@json_option
def info(store: Path, as_json: bool) -> None:
    """Say what STORE holds."""
    from ingest.open import open_store

    opened = open_store(store)
    entries: list[dict[str, Any]] = []
    texts: list[str] = []
    damaged: list[IngestError] = []
    for name in opened.recordings():
        try:
            commit, size = opened.commit(name), opened.size_bytes(name)
        except IngestError as error:
            entries.append({"name": name, "error": str(error)})
            damaged.append(error)
        else:
            entries.append({"name": name, "size_bytes": size} | msgspec.to_builtins(commit))
            texts.append(_recording_text(name, commit, size))
    if as_json:
        path = click.format_filename(store)
        held = {"path": path, "format": opened.format, "recordings": entries}
        click.echo(json.dumps(held | {"uncommitted": opened.uncommitted()}, indent=2))
    else:
        head = f"{opened.format}, {_counted(len(entries), 'recording')}"
        texts += map(_uncommitted_text, opened.uncommitted())
        click.echo("\n".join([f"{click.format_filename(store)}: {head}", *texts]))
    _exit_if_any(damaged)


@main.command()
@click.argument("store", type=click.Path(path_type=Path))
@recordings_option
@json_option
def verify(store: Path, recordings: str, as_json: bool) -> None:
    """Read all of STORE and check every checksum, time and count.

    The exit code is 1 if anything is wrong. A recording that is being written is checked as far
    as it is committed.
    """
    from ingest.open import open_store
    from ingest.verify import verify_store

    opened = open_store(store)
    entries = []
    faulty = 0
    with _line() as show:
        for verified in verify_store(
            opened, recordings=recordings, progress=lambda at: show(*_verifying_parts(at))
        ):
            faulty += not verified.ok
            if as_json:
                entries.append({"ok": verified.ok} | msgspec.to_builtins(verified))
            else:
                click.echo(_verified_text(verified))
    path = click.format_filename(store)
    if as_json:
        held = {"path": path, "format": opened.format, "recordings": entries}
        click.echo(json.dumps(held | {"uncommitted": opened.uncommitted()}, indent=2))
    else:
        for name in opened.uncommitted():
            click.echo(_uncommitted_text(name))
    if faulty:
        _fail(f"{path}: {_counted(faulty, 'recording')} damaged; restore or ingest again")


@main.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("recording")
@click.argument("video", type=click.Path(path_type=Path), metavar="OUT.mp4")
@click.option(
    "--start",
    type=_Finite(0),
    default=0.0,
    show_default=True,
    help="Seconds after the first frame.",
)
@click.option("--seconds", type=_Finite(0, min_open=True), help="How much.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace OUT.mp4, and masks beside it.")
def export(
    store: Path,
    recording: str,
    video: Path,
    start: float,
    seconds: float | None,
    overwrite: bool,
) -> None:
    """Give the frames of RECORDING in STORE back as a video.

    Frames keep their times, and masks go into OUT.masks.h5 beside it.
    """
    from ingest.export import export_recording
    from ingest.open import open_store

    with _line() as show:
        exported = export_recording(
            open_store(store),
            recording,
            video,
            start=start,
            seconds=seconds,
            overwrite=overwrite,
            progress=lambda done, of: show(f"exporting {recording}", f"{done}/{of} frames"),
        )
    masks = "" if exported.sidecar is None else f"; masks in {exported.sidecar}"
    frames = _counted(exported.frames, "frame")
    click.echo(f"{exported.video}: {frames}, {exported.duration_seconds:.1f} s{masks}")


@main.command()
@click.argument("store", type=click.Path(path_type=Path))
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
    help="For trainers that ask for none: time order, or a block shuffle.",
)
@click.option("--follow", is_flag=True, help="Serve what is added to the store, for ever.")
@recordings_option
@holdout_option
def serve(
    store: Path,
    address: str,
    keys: Path | None,
    allow: Path | None,
    order: Any,
    follow: bool,
    recordings: str,
    holdout: float,
) -> None:
    """Serve the clips of STORE to trainers, until Ctrl-C.

    It counts the trainers that are connected, clips and megabytes sent, the megabytes that trainers
    may still be sent (credit), requests for certain frames, by probes and resumed runs (fetches),
    connections so far (sessions), trainers gone without a word (lost), trainers that said nothing
    for three seconds (hung), and messages that no trainer of this version sends (rejected).
    """
    from ingest.open import open_store
    from online.server import serve as serve_store
    from online.stream import ServeConfig

    server_keys = _server_keys(keys, allow)
    config = ServeConfig(order=order, follow=follow, recordings=recordings, holdout=holdout)
    with _line() as show:
        counters = serve_store(
            open_store(store),
            address,
            config=config,
            keys=server_keys,
            ready=lambda at: click.echo(f"serving {store} at {at}"),
            report=lambda counters: show(*_server_parts(counters)),
        )
    click.echo(", ".join(_server_parts(counters)))


@main.command()
@click.argument("store", type=click.Path(path_type=Path), required=False)
@click.option(
    "--connect",
    "addresses",
    multiple=True,
    metavar="ADDR",
    help="A server to learn from; may be given several times, instead of STORE.",
)
@keys_option
@click.option(
    "--server-key",
    "server_keys",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="The server's .public file; one for all, or one for each --connect.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory of the run; an existing run continues.",
)
@click.option("--preset", default="demo", show_default=True, help="See `setcon presets`.")
@click.option(
    "--recordings",
    metavar="GLOB",
    help="Recordings to use, by name.  [default: what the preset says, *]",
)
@settings_option
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps of the whole run.")
@click.option(
    "--minutes",
    type=_Finite(0, min_open=True),
    help="End after this much time, earlier starts of the run included.",
)
@holdout_option
def train(
    store: Path | None,
    addresses: tuple[str, ...],
    keys: Path | None,
    server_keys: tuple[Path, ...],
    run: Path,
    preset: str,
    recordings: str | None,
    settings: tuple[str, ...],
    steps: int | None,
    minutes: float | None,
    holdout: float,
) -> None:
    """Learn from STORE, or from servers, and probe on held-out footage.

    The same command again continues from the last checkpoint. Ctrl-C saves and leaves; a second
    Ctrl-C leaves at once. From a camera, it says how old frames are when they arrive (behind), and
    how many clips were too old to be learned from or no longer kept (skipped); of servers, how
    often they were connected to again (reconnects), and how many messages came damaged or too late
    (discarded): those were asked for again. In the end it counts the clips that were received and
    inserted.
    """
    if (store is None) == (not addresses):
        raise click.UsageError("give either STORE or --connect ADDR")
    trainer_keys = _trainer_keys(keys, server_keys, len(addresses))
    from online.run import train_connected, train_on_store

    config = _config(preset, settings, steps=steps, recordings=recordings)
    with _line() as show:

        def observe(status: Status) -> None:
            show(*_status_parts(status))

        if store is not None:
            outcome = train_on_store(
                store,
                run,
                config,
                holdout=holdout,
                minutes=minutes,
                observe=observe,
                command=_command_line(),
            )
        else:
            outcome = train_connected(
                addresses,
                run,
                config,
                keys=trainer_keys,
                minutes=minutes,
                observe=observe,
                command=_command_line(),
            )
    _report_outcome(outcome, run)


@main.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@recordings_option
@click.option(
    "--holdout",
    type=_Finite(0, 1, max_open=True),
    help="Share of each recording to score on.  [default: what the run held out]",
)
@json_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Directory for the scores and their picture."
)
@click.option(
    "--continual",
    is_flag=True,
    help="Instead: what RUN knew of each recording after each segment of its stream.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="With --continual: another run, such as one that learned in random order.",
)
def evaluate(
    run: Path,
    store: Path,
    recordings: str,
    holdout: float | None,
    as_json: bool,
    out: Path | None,
    continual: bool,
    against: Path | None,
) -> None:
    """Probe RUN's newest checkpoint on the held-out part of STORE.

    With --continual, a run that was trained with `--set training.keep_segments=true --set
    stream.order=stream` is probed as it was at the end of each recording of its stream, on every
    one of them.
    """
    if against is not None and not continual:
        raise click.UsageError("--against RUN is for --continual")
    if continual:
        if recordings != "*":
            raise click.UsageError(
                "--continual takes all recordings of RUN; leave --recordings out"
            )
        _evaluate_continual(run, store, against, holdout, as_json=as_json, out=out)
        return
    from online.figures import panel_figure
    from online.scores import save_evaluation
    from online.trained_run import evaluate_run
    from online.verdict import evaluation_verdict

    with _line() as show:
        findings = evaluate_run(
            run,
            store,
            recordings=recordings,
            holdout=holdout,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    if out is not None:
        save_evaluation(out, findings.evaluation, findings.panels)
        (out / "panels.png").write_bytes(panel_figure(findings.panels))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings.evaluation), indent=2))
    else:
        click.echo(_evaluation_text(findings.evaluation))
        click.echo(evaluation_verdict(findings.evaluation))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("video", type=click.Path(path_type=Path), metavar="OUT.mp4")
@recordings_option
@click.option(
    "--part",
    type=click.Choice(["held_out", "all"]),
    default="held_out",
    show_default=True,
    help="Footage that was never learned from, or all of it.",
)
@click.option("--seconds", type=_Finite(0, min_open=True), help="How much.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace OUT.mp4.")
def render(
    run: Path,
    store: Path,
    video: Path,
    recordings: str,
    part: Any,
    seconds: float | None,
    overwrite: bool,
) -> None:
    """Draw what RUN's newest checkpoint sees in STORE, as a video.

    Beside each frame: its segments, one colour for each slot, and what the probe draws from the
    slots.
    """
    from online.render import render_run

    with _line() as show:
        rendered = render_run(
            run,
            store,
            video,
            recordings=recordings,
            part=part,
            seconds=seconds,
            overwrite=overwrite,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    shorter = ", all there is" if rendered.is_all and seconds is not None else ""
    length = f"{_counted(rendered.frames, 'frame')}, {rendered.seconds:.1f} s{shorter}"
    click.echo(f"{rendered.path}: {length}, step {rendered.step}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("embeddings", type=click.Path(path_type=Path), metavar="OUT.h5")
@recordings_option
@click.option(
    "--alphas/--no-alphas",
    default=True,
    show_default=True,
    help="Also where each slot is: most of the file, and what a probe is fitted for.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.h5.")
def embed(
    run: Path, store: Path, embeddings: Path, recordings: str, alphas: bool, overwrite: bool
) -> None:
    """Write the slots of every frame of STORE to an HDF5 file.

    For each recording it has a group with slots (n, k, d), alphas (n, k, h, w) in 255ths, pts_ns,
    gap, and held_out: the frames that a run on STORE does not learn from.
    """
    from online.embed import embed_run

    with _line() as show:
        embedded = embed_run(
            run,
            store,
            embeddings,
            recordings=recordings,
            alphas=alphas,
            overwrite=overwrite,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    frames = _counted(embedded.frames, "frame")
    recorded = _counted(embedded.recordings, "recording")
    click.echo(f"{embedded.path}: {frames} of {recorded}, step {embedded.step}")


@main.command()
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="comparison.html",
    show_default=True,
    help="The page to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace the page.")
def compare(runs: tuple[Path, ...], out: Path, overwrite: bool) -> None:
    """Put several runs on one page: scores, curves and what the slots hold.

    Runs that differ in `training.seed` alone are one: their scores are given as mean and standard
    error, their curves as a mean in a band.
    """
    from online.compare import comparison_text, group_runs, remarks
    from online.compare_page import write_comparison

    groups = group_runs(runs)
    write_comparison(groups, out, overwrite=overwrite)
    click.echo(comparison_text(groups))
    for remark in remarks(groups):
        click.echo(remark)
    click.echo(f"comparison: {out}")


@main.command()
@click.argument("video", type=click.Path(path_type=Path), required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Directory for everything the demo makes.  [default: setcon-demo, or setcon-demo-VIDEO]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Of the recording, the model and every draw.  [default: 0]",
)
@click.option(
    "--minutes",
    type=_Finite(0, min_open=True),
    help="Learn for at most this long, earlier starts included.",
)
@settings_option
def demo(
    video: Path | None,
    out: Path | None,
    seed: int | None,
    minutes: float | None,
    settings: tuple[str, ...],
) -> None:
    """Ingest, serve, train, probe and report, on VIDEO or on a recording made for it.

    Without VIDEO it renders three bouncing balls with ground-truth masks. Of VIDEO the middle
    square is learned from, at 32x32; `setcon ingest --fit` has other ways. Other work on the
    machine makes it slower; --minutes bounds the learning.
    """
    from online.demo import PICTURE, RUN, SCENE, STORE, DemoProgress, run_demo

    out = out or Path("setcon-demo" if video is None else f"setcon-demo-{video.stem}")
    preset = "demo" if video is None else "video"
    if seed is not None:
        if any(setting.startswith("training.seed") for setting in settings):
            raise click.UsageError("--seed and --set training.seed are one setting: give one")
        settings = (*settings, f"training.seed={seed}")
    config = _config(preset, settings)
    again = ["setcon", "train", str(out / STORE), "--run", str(out / RUN), "--preset", preset]
    again += [word for setting in settings for word in ("--set", setting)]
    with _line() as show:
        outcome = run_demo(
            out,
            config,
            video=video,
            minutes=minutes,
            progress=DemoProgress(
                rendering=lambda done: show("rendering", f"{done}/{SCENE.num_frames} frames"),
                ingesting=lambda progress: show(*_ingest_parts(progress)),
            ),
            observe=lambda status: show(*_status_parts(status)),
            command=again,
        )
    _report_outcome(outcome, out / RUN)
    click.echo(f"picture: {out / PICTURE}")


@main.command()
@click.argument(
    "scene",
    type=click.Choice(["balls", "gridworld", "sprites", "three-object", "seven-object"]),
)
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--frames", type=click.IntRange(1), default=900, show_default=True)
@click.option("--fps", type=click.IntRange(1, 1000), default=30, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace VIDEO.")
def scene(scene: str, video: Path, frames: int, fps: int, seed: int, overwrite: bool) -> None:
    """Render a procedural SCENE to VIDEO (.mp4), with its ground-truth masks beside it."""
    from ingest.durable import clear_write_errors
    from ingest.errors import ExportError
    from ingest.mp4_writer import target_fault
    from ingest.scene_video import render_scene
    from ingest.scenes import SCENES

    if fault := target_fault(video, what="a scene", overwrite=overwrite):
        raise ExportError(fault)
    config = SCENES[scene](num_frames=frames, fps=fps, seed=seed)
    with _line() as show, clear_write_errors(str(video)):
        rendered = render_scene(
            config, video, progress=lambda done: show("rendering", f"{done}/{frames} frames")
        )
    click.echo(f"{rendered.video}: {rendered.num_frames} frames; masks in {rendered.sidecar}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def keygen(folder: Path) -> None:
    """Make keys in DIR, for a server that other machines reach or for a trainer.

    DIR/NAME.secret stays here, where only its owner can read it. DIR/NAME.public is copied to the
    other side: a trainer's for --allow, a server's for --server-key.
    """
    from online.keys import make_keys

    click.echo(f"public key, to be copied to the other side: {make_keys(folder)}")


@main.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or print one in full, every setting explained."""
    from online.config import load_preset, preset_comment, preset_names
    from online.explain import explained

    if name is None:
        for preset in preset_names():
            click.echo(f"{preset:<14}{preset_comment(preset)[0]}")
    else:
        head = [f"# {line}".rstrip() for line in preset_comment(name)]
        click.echo("\n".join([*head, "", explained(load_preset(name))]), nl=False)


def _evaluate_continual(
    run: Path,
    store: Path,
    against: Path | None,
    holdout: float | None,
    *,
    as_json: bool,
    out: Path | None,
) -> None:
    from online.continual import evaluate_continual
    from online.heat_map import heat_map_figure
    from online.report import write_report
    from online.transfer import to_json

    with _line() as show:
        continual = evaluate_continual(
            run,
            store,
            against=against,
            holdout=holdout,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "continual.json").write_bytes(to_json(continual))
        (out / "continual.png").write_bytes(heat_map_figure(continual))
    report = write_report(run)
    if as_json:
        click.echo(to_json(continual).decode())
    else:
        click.echo(_continual_text(continual))
        click.echo(f"report: {report}")


def _server_keys(keys: Path | None, allow: Path | None) -> ServerKeys | None:
    if keys is None and allow is None:
        return None
    from online.security import ServerKeys

    if keys is None or allow is None:
        raise click.UsageError("--keys DIR and --allow PATH need each other")
    return ServerKeys(keys, allow)


def _trainer_keys(keys: Path | None, servers: tuple[Path, ...], count: int) -> list[TrainerKeys]:
    """One for each of ``count`` addresses, or none at all."""
    if keys is None and not servers:
        return []
    from online.security import TrainerKeys

    if keys is None or not servers or not count:
        raise click.UsageError("--connect ADDR, --keys DIR and --server-key FILE need each other")
    if len(servers) not in (1, count):
        raise click.UsageError(
            f"{len(servers)} --server-key for {count} --connect; give one for all, or one for each"
        )
    each = servers * count if len(servers) == 1 else servers
    return [TrainerKeys.load(keys, server) for server in each]


def _record_settings(**settings: Any) -> RecordSettings:
    from ingest.store import RecordSettings

    try:
        return RecordSettings(**settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _config(
    preset: str,
    settings: Iterable[str],
    *,
    steps: int | None = None,
    recordings: str | None = None,
) -> RunConfig:
    from online.config import load_preset

    more = [] if steps is None else [f"training.steps={steps}"]
    if recordings is not None:  # as a TOML string, or the name `1` would be a number
        more.append(f"stream.recordings={json.dumps(recordings, ensure_ascii=False)}")
    return load_preset(preset, [*settings, *more])


def _command_line() -> list[str]:
    """What was typed, to be typed again; without its limits, which will have been used up."""
    typed, kept = iter(sys.argv[1:]), ["setcon"]
    for word in typed:
        option, equals, _ = word.partition("=")
        if option not in ("--steps", "--minutes"):
            kept.append(word)
        elif not equals:
            next(typed, None)
    return kept


def _known_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is one line for people; of the packages that were imported."""
    from online.errors import OnlineError

    known: list[type[Exception]] = [IngestError, OnlineError]
    if "setcon" in sys.modules:
        from setcon.errors import SetConError

        known.append(SetConError)
    return tuple(known)


def _fail(error: object) -> NoReturn:
    _tell(error)
    sys.exit(1)


def _exit_if_any(errors: Iterable[object]) -> None:
    """What went wrong while the rest went well: a line each, and the exit code."""
    told = [_tell(error) for error in errors]
    if told:
        sys.exit(1)


def _tell(error: object) -> None:
    click.secho(f"error: {error}", fg="red", err=True)


@contextmanager
def _line() -> Iterator[Callable[..., None]]:
    """A function that shows one line of progress: redrawn on a terminal, else now and then.

    It takes the parts of the line, in order of importance.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        def redraw(*parts: str) -> None:
            text = _fitted(parts, live.console.width)
            live.update(Text(text, no_wrap=True, overflow="ellipsis"))

        with Live(console=Console(stderr=True), transient=True, refresh_per_second=8) as live:
            yield redraw
        return
    shown_at = -PLAIN_SECONDS

    def show(*parts: str) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= PLAIN_SECONDS:
            shown_at = time.monotonic()
            click.echo("  ".join(parts), err=True)

    yield show


def _fitted(parts: Sequence[str], columns: int) -> str:
    """The first part, and of the others in turn those for which a line has room."""
    line, *others = parts
    for part in others:
        if len(line) + 2 + len(part) <= columns:
            line += f"  {part}"
    return line


def _warn_of_several_sizes(store: Path) -> None:
    """Say at once what training would refuse in the end."""
    from ingest.jobs import recordings_by_size
    from ingest.open import open_store

    sizes = recordings_by_size(open_store(store))
    if len(sizes) > 1:
        held = "; ".join(f"{w}x{h}: {_listed(names)}" for (w, h), names in sizes.items())
        click.secho(
            f"warning: {click.format_filename(store)}: recordings of several frame sizes, which "
            f"cannot be learned from together ({held}); ingest some again with another --size and "
            "--overwrite, or use `setcon train --recordings GLOB`",
            fg="yellow",
            err=True,
        )


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _uncommitted_text(name: str) -> str:
    return f"{name}: nothing is committed, whatever lies there; ingest its source again"


def _recording_text(name: str, commit: CommitRecord, size_bytes: int) -> str:
    state = "complete" if commit.complete else "not complete"
    share = f", {size_bytes / commit.raw_bytes:.0%} of raw" if commit.raw_bytes else ""
    counts = msgspec.to_builtins(commit.counters)
    del counts["gaps"]
    named = [f"{key.replace('_', ' ')} {count}" for key, count in counts.items()]
    return (
        f"  {name}: {_footage_text(commit)}, {state}, {size_bytes / 1e6:.1f} MB{share}\n"
        f"    {', '.join([*named, _breaks_text(commit)])}\n"
        f"    from {commit.source.path}"
    )


def _footage_text(commit: CommitRecord) -> str:
    masks = ", masks" if commit.has_masks else ""
    frames = f"{_counted(commit.length, 'frame')} of {commit.width}x{commit.height}"
    released = f", the first {commit.released} let go of" if commit.released else ""
    return f"{frames}{masks}, {commit.duration_seconds:.1f} s{released}"


def _breaks_text(commit: CommitRecord) -> str:
    """How often the footage is interrupted; the first frame is a gap, but interrupts nothing."""
    breaks = max(0, commit.counters.gaps - 1)
    return _counted(breaks, "break") if breaks else "no breaks"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _ingest_parts(progress: Progress) -> list[str]:
    of = f"/{progress.expected_frames}" if progress.expected_frames else ""
    parts = [f"ingesting {progress.name}", f"{progress.frames}{of} frames"]
    if progress.eta_seconds is not None:
        parts.append(f"{progress.eta_seconds:.0f} s left")
    return [*parts, f"{progress.fps:.0f} fps", f"{progress.times_real_time:.1f}x real time"]


def _verifying_parts(progress: VerifyProgress) -> list[str]:
    rate = progress.read_bytes / 1e6 / progress.seconds if progress.seconds else 0
    share = progress.read_bytes / progress.total_bytes
    return [f"verifying {progress.name}", f"{share:.0%}", f"{rate:.0f} MB/s"]


def _verified_text(verified: Verified) -> str:
    if not verified.ok:
        chunks = _counted(verified.damaged_chunks, "damaged chunk")
        return f"{verified.name}: {chunks}; {'; '.join(verified.faults)}"
    rate = verified.read_bytes / 1e6 / verified.seconds if verified.seconds else 0
    parts = [f"ok, {_counted(verified.frames, 'frame')}, {rate:.0f} MB/s"]
    if not verified.complete:
        parts.append("not complete")
    if verified.leftovers:
        parts.append(
            f"left by a killed writer, nothing in it counts: {' '.join(verified.leftovers)}"
        )
    return f"{verified.name}: {', '.join(parts)}"


def _capture_parts(captured: Captured) -> list[str]:
    return [
        f"capturing {captured.name}",
        f"{captured.commit.length} frames",
        f"{captured.delay_seconds:.1f} s behind",
        *_lost_parts(captured),
        *([f"{released} let go of"] if (released := captured.commit.released) else []),
        f"{captured.fps:.1f} fps",
    ]


def _lost_parts(captured: Captured) -> list[str]:
    dropped, reconnects = captured.commit.counters.dropped, captured.reconnects
    return [f"{dropped} dropped", _counted(reconnects, "reconnect")]


def _server_parts(counters: ServerCounters) -> list[str]:
    return [
        _counted(counters.connected, "trainer"),
        _counted(counters.clips, "clip"),
        f"{counters.clip_bytes / 1e6:.1f} MB sent",
        f"{counters.bytes_per_second / 1e6:.1f} MB/s",
        f"{counters.credit_bytes / 1e6:.1f} MB credit",
        f"{counters.lost} lost",
        f"{counters.silent} hung",
        f"{counters.rejected} rejected",
        f"{counters.fetches} fetches",
        _counted(counters.sessions, "session"),
    ]


def _status_parts(status: Status) -> list[str]:
    parts = [f"{status.activity} {status.share:.0%}", f"step {status.step}/{status.steps}"]
    if not status.learns:
        return parts
    if status.eta_seconds is not None and status.activity == "learning":
        parts.append(f"ETA {_clock_text(status.eta_seconds)}")
    if status.top1 is not None:
        parts.append(f"top-1 {_hundredths(status.top1)}")
    if status.prequential_top1 is not None:
        old = status.step - status.prequential_step > NOTHING_NEW_STEPS
        until = f" until step {status.prequential_step}" if old else ""
        parts.append(f"new footage {_hundredths(status.prequential_top1)}{until}")
    if status.delay_seconds is not None:
        parts.append(f"{status.delay_seconds:.1f} s behind")
    if status.skipped:
        parts.append(f"{status.skipped} skipped")
    if status.reconnects:
        parts.append(_counted(status.reconnects, "reconnect"))
    if status.damaged:
        parts.append(f"{status.damaged} damaged")
    if status.discarded:
        parts.append(f"{status.discarded} discarded")
    if status.loss is not None:
        parts.append(f"loss {status.loss:.2f}")
    if status.triplets_per_second:
        parts.append(f"{status.triplets_per_second:.0f} triplets/s")
    if status.samples_per_insert:
        parts.append(f"clips seen {status.samples_per_insert:.0f}x")
    if status.queued_bytes:
        parts.append(f"{status.queued_bytes / 1e6:.1f} MB queued")
    if status.beside:
        parts.append(status.beside)
    elif status.probe_share >= 0.005:
        parts.append(f"probes {status.probe_share:.0%}")
    return parts


def _spent_text(spent: Spent) -> str:
    return (
        f"took {_clock_text(spent.seconds)}: learning stood still for probes for "
        f"{spent.probe_share:.1%} of it, for checkpoints for {spent.checkpoint_share:.1%}"
    )


def _clock_text(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _hundredths(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")


def _report_outcome(outcome: Outcome, run: Path) -> None:
    from online.run_log import read_run
    from online.verdict import verdict

    if outcome.signal_number is not None:
        saved = f"at step {outcome.step}, saved" if outcome.step else "before the first step"
        goes_on = "makes the last probe of" if outcome.has_learned else "continues"
        click.echo(f"stopped {saved}; the same command {goes_on} {run}")
        sys.exit(128 + outcome.signal_number)
    if outcome.step > outcome.first_step:
        click.echo(f"{outcome.reason} at step {outcome.step}; {_received_text(outcome)}")
        if outcome.spent is not None:
            click.echo(_spent_text(outcome.spent))
    else:
        click.echo(f"{outcome.reason} at step {outcome.step} already: nothing was left to learn")
    if outcome.evaluation is not None:
        click.echo(_evaluation_text(outcome.evaluation))
        click.echo(verdict(read_run(run)))
    click.echo(f"report: {outcome.report}")


def _received_text(outcome: Outcome) -> str:
    received, clips = outcome.received, outcome.clips
    parts = [
        f"{_counted(received.clips, 'clip')} received ({received.clip_bytes / 1e6:.1f} MB)",
        _counted(received.reconnects, "reconnect"),
        f"{received.damaged} damaged",
        f"{received.stale} discarded",
    ]
    return f"{', '.join(parts)}; in all {clips.inserted} inserted, {clips.skipped} skipped"


def _evaluation_text(evaluation: Evaluation) -> str:
    from online.report_table import placed

    trained, untrained = evaluation.trained, evaluation.untrained
    mean = (f"{evaluation.mean_frame_mse:.5f}", "1.000", _decibels(evaluation.mean_frame_psnr))
    rows = [
        ("", "MSE", "of mean", "PSNR", "FG-ARI", "ARI", "mBO"),
        _score_row("trained    s_t", trained.current),
        _score_row("trained    p_t", trained.predicted),
        *([_score_row("copied as p_t", evaluation.copied)] if evaluation.copied else []),
        _score_row("untrained  s_t", untrained.current),
        _score_row("untrained  p_t", untrained.predicted),
        ("mean frame", *mean),
    ]
    if (simple := evaluation.without_model) is not None:
        nothing_drawn = ("-",) * 3
        rows.append(("image in blocks", *nothing_drawn, *_mask_cells(simple.blocks)))
        rows.append(("colours alone", *nothing_drawn, *_mask_cells(simple.colours)))
    head = f"held-out footage: {evaluation.frames_held_out} frames, step {evaluation.step}"
    lines = [f"{row[0]:<16}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
    if trained.places and untrained.places:
        told = f"{placed(trained.places)}; untrained {placed(untrained.places)}"
        lines.append(f"things whose place one slot alone tells: {told}")
    return "\n".join([head, *(line.rstrip() for line in lines)])


def _continual_text(continual: Continual) -> str:
    rows = continual.rows
    wide = max(len(name) for name, _ in rows)
    columns = [max(9, len(name) + 2) for name in continual.recordings]
    head = "".join(f"{n:>{w}}" for n, w in zip(continual.recordings, columns, strict=True))
    lines = [f"{continual.measure} on held-out frames", f"{'':{wide}}{head}"]
    for name, scores in rows:
        lines.append(
            f"{name:{wide}}" + "".join(f"{s:{w}.3f}" for s, w in zip(scores, columns, strict=True))
        )
    for what, value in (
        ("average at the end", continual.final),
        ("forgotten since the best", continual.forgetting),
        ("backward transfer", continual.backward_transfer),
        ("forward transfer", continual.forward_transfer),
        ("lowest on the way", continual.lowest),
        ("of the other run's gain", continual.reached),
    ):
        if value is not None:
            lines.append(f"{what:26}{value:7.3f}")
    return "\n".join(lines)


def _score_row(name: str, part: ReconstructionScores) -> tuple[str, ...]:
    drawn = (f"{part.mse:.5f}", _three(part.mse_share), _decibels(part.psnr))
    return (name, *drawn, *_mask_cells(part.alphas))


def _mask_cells(masks: MaskScores | None) -> tuple[str, ...]:
    if masks is None:
        return ("-",) * 3
    return tuple(f"{value:.3f}" for value in (masks.fg_ari, masks.ari, masks.mbo))


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
