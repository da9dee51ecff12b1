"""setcon on the command line: parse, call, print, exit code. Everything else lives in the packages.

Imports of torch and of whatever needs it stay inside the commands that do, so that `ingest`,
`capture`, `info` and `serve` start fast.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ingest.errors import IngestError
from terminal.errors import OneLineErrors, exit_if_any, fail
from terminal.parameters import Duration, Finite
from terminal.progress import progress_line
from terminal.recordings import (
    breaks_text,
    capture_parts,
    counted,
    footage_text,
    ingest_parts,
    lost_parts,
    recording_text,
    uncommitted_text,
    verified_text,
    verifying_parts,
)
from terminal.runs import (
    comparison_text,
    continual_text,
    evaluation_text,
    received_text,
    server_parts,
    spent_text,
    status_parts,
)

if TYPE_CHECKING:
    from ingest.live.capture import Captured
    from ingest.store.records import RecordSettings
    from online.config import RunConfig
    from online.queue.security import ServerKeys, TrainerKeys
    from online.session.loop import Outcome
    from online.session.status import Status


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
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
    type=Finite(0, 1, max_open=True),
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
    type=Finite(0, min_open=True),
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
    with progress_line() as show:
        outcomes = ingest_sources(
            sources,
            store,
            settings,
            store_format=store_format,
            workers=workers,
            overwrite=overwrite,
            durable=durable,
            progress=lambda progress: show(*ingest_parts(progress)),
        )
    for outcome in outcomes:
        if outcome.recorded is not None:
            commit, recorded = outcome.recorded.commit, outcome.recorded
            click.echo(
                f"{recorded.name}: {recorded.status}, {footage_text(commit)}, "
                f"{breaks_text(commit)}, {recorded.seconds:.1f} s taken"
            )
        if outcome.warning is not None:
            click.secho(f"warning: {outcome.warning}", fg="yellow", err=True)
    if any(outcome.recorded is not None for outcome in outcomes):
        _warn_of_several_sizes(store)
    exit_if_any(outcome.error for outcome in outcomes if outcome.error is not None)


@main.command()
@click.argument("device")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--name", help="Of the recording.  [default: the device and the time]")
@size_option
@click.option(
    "--fps",
    type=Finite(0, min_open=True),
    help="Keep at most this many frames per second.",
)
@click.option(
    "--seconds", type=Finite(0, min_open=True), help="End after this much time.  [default: never]"
)
@click.option(
    "--keep",
    "keep_seconds",
    type=Duration(),
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
    from ingest.live.camera import Camera
    from ingest.live.capture import LEAST_KEPT_SECONDS, open_live_store
    from ingest.live.capture import capture as capture_from
    from ingest.live.devices import parse_device
    from online.stop import StopSignals

    if address is None and (keys or allow):
        raise click.UsageError("--keys and --allow are for --serve ADDR")
    if keep_seconds is not None and keep_seconds < LEAST_KEPT_SECONDS:
        raise click.UsageError(f"--keep takes {LEAST_KEPT_SECONDS / 60:g}m at the least")
    server_keys = _server_keys(keys, allow)
    settings = _record_settings(size=size, fps=fps, reader="camera")
    source = parse_device(device, options)
    with progress_line() as show, StopSignals() as signals:

        def should_stop() -> bool:
            return signals.received is not None

        def observe(captured: Captured) -> None:
            show(*capture_parts(captured))

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
                from online.capture import capture_and_serve

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
        f"{captured.name}: captured, {footage_text(captured.commit)}, "
        f"{breaks_text(captured.commit)}, {', '.join(lost_parts(captured))}"
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
            texts.append(recording_text(name, commit, size))
    if as_json:
        path = click.format_filename(store)
        held = {"path": path, "format": opened.format, "recordings": entries}
        click.echo(json.dumps(held | {"uncommitted": opened.uncommitted()}, indent=2))
    else:
        head = f"{opened.format}, {counted(len(entries), 'recording')}"
        texts += map(uncommitted_text, opened.uncommitted())
        click.echo("\n".join([f"{click.format_filename(store)}: {head}", *texts]))
    exit_if_any(damaged)


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
    with progress_line() as show:
        for verified in verify_store(
            opened, recordings=recordings, progress=lambda at: show(*verifying_parts(at))
        ):
            faulty += not verified.ok
            if as_json:
                entries.append({"ok": verified.ok} | msgspec.to_builtins(verified))
            else:
                click.echo(verified_text(verified))
    path = click.format_filename(store)
    if as_json:
        held = {"path": path, "format": opened.format, "recordings": entries}
        click.echo(json.dumps(held | {"uncommitted": opened.uncommitted()}, indent=2))
    else:
        for name in opened.uncommitted():
            click.echo(uncommitted_text(name))
    if faulty:
        fail(f"{path}: {counted(faulty, 'recording')} damaged; restore or ingest again")


@main.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("recording")
@click.argument("video", type=click.Path(path_type=Path), metavar="OUT.mp4")
@click.option(
    "--start",
    type=Finite(0),
    default=0.0,
    show_default=True,
    help="Seconds after the first frame.",
)
@click.option("--seconds", type=Finite(0, min_open=True), help="How much.  [default: all]")
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

    with progress_line() as show:
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
    frames = counted(exported.frames, "frame")
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
    from online.queue.server import serve as serve_store
    from online.queue.stream import ServeConfig

    server_keys = _server_keys(keys, allow)
    config = ServeConfig(order=order, follow=follow, recordings=recordings, holdout=holdout)
    with progress_line() as show:
        counters = serve_store(
            open_store(store),
            address,
            config=config,
            keys=server_keys,
            ready=lambda at: click.echo(f"serving {store} at {at}"),
            report=lambda counters: show(*server_parts(counters)),
        )
    click.echo(", ".join(server_parts(counters)))


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
    type=Finite(0, min_open=True),
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
    how many clips were too old to be learned from or no longer kept (skipped); of servers, how much
    has arrived ahead of need (queued; stream.credit_bytes bounds it), how often they were connected
    to again (reconnects), and how many messages came damaged or too late (discarded): those were
    asked for again. In the end it counts the clips that were received and inserted.
    """
    if (store is None) == (not addresses):
        raise click.UsageError("give either STORE or --connect ADDR")
    trainer_keys = _trainer_keys(keys, server_keys, len(addresses))
    from online.session.start import train_connected, train_on_store

    config = _config(preset, settings, steps=steps, recordings=recordings)
    with progress_line() as show:

        def observe(status: Status) -> None:
            show(*status_parts(status))

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
    type=Finite(0, 1, max_open=True),
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
    from ingest.store.output import folder_fault
    from online.errors import RunError

    if out is not None and (fault := folder_fault(out)):
        raise RunError(fault)
    if continual:
        if recordings != "*":
            raise click.UsageError(
                "--continual takes all recordings of RUN; leave --recordings out"
            )
        _evaluate_continual(run, store, against, holdout, as_json=as_json, out=out)
        return
    from online.analysis.opened import evaluate_run
    from online.reports.figures import panel_figure
    from online.reports.verdict import evaluation_verdict
    from online.scores.evaluation import save_evaluation

    with progress_line() as show:
        findings = evaluate_run(
            run,
            store,
            recordings=recordings,
            holdout=holdout,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings.evaluation), indent=2))
    else:
        click.echo(evaluation_text(findings.evaluation))
        click.echo(evaluation_verdict(findings.evaluation))
    if out is not None:  # what cannot be written has been said by then
        save_evaluation(out, findings.evaluation, findings.panels)
        (out / "panels.png").write_bytes(panel_figure(findings.panels))


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
@click.option("--seconds", type=Finite(0, min_open=True), help="How much.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace OUT.mp4, and masks beside it.")
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
    from online.analysis.render import render_run

    with progress_line() as show:
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
    length = f"{counted(rendered.frames, 'frame')}, {rendered.seconds:.1f} s{shorter}"
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
    from online.analysis.embed import embed_run

    with progress_line() as show:
        embedded = embed_run(
            run,
            store,
            embeddings,
            recordings=recordings,
            alphas=alphas,
            overwrite=overwrite,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    frames = counted(embedded.frames, "frame")
    recorded = counted(embedded.recordings, "recording")
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
    """Put several runs on one page: scores, curves, what slots hold.

    Runs that differ in `training.seed` alone are one: their scores are given as mean and standard
    error, their curves as a mean in a band.
    """
    from online.reports.compare import group_runs, remarks
    from online.reports.compare_page import write_comparison

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
    type=Finite(0, min_open=True),
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
    """Ingest, serve, train, probe and report with one command.

    Without VIDEO it renders three bouncing balls with ground-truth masks, and learns from these. Of
    VIDEO the middle square is learned from, at 32x32; `setcon ingest --fit` has other ways. Other
    work on the machine makes it slower; --minutes bounds the learning.
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
    with progress_line() as show:
        outcome = run_demo(
            out,
            config,
            video=video,
            minutes=minutes,
            progress=DemoProgress(
                rendering=lambda done: show("rendering", f"{done}/{SCENE.num_frames} frames"),
                ingesting=lambda progress: show(*ingest_parts(progress)),
            ),
            observe=lambda status: show(*status_parts(status)),
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
@click.option("--overwrite", is_flag=True, help="Replace VIDEO, and masks beside it.")
def scene(scene: str, video: Path, frames: int, fps: int, seed: int, overwrite: bool) -> None:
    """Render a procedural SCENE to VIDEO (.mp4), masks beside it."""
    from ingest.errors import ExportError
    from ingest.scenes import SCENES
    from ingest.scenes.video import render_scene
    from ingest.store.output import writing
    from ingest.video.mp4_writer import video_fault

    if fault := video_fault(video, what="a scene", overwrite=overwrite):
        raise ExportError(fault)
    config = SCENES[scene](num_frames=frames, fps=fps, seed=seed)
    with progress_line() as show, writing(video):
        rendered = render_scene(
            config, video, progress=lambda done: show("rendering", f"{done}/{frames} frames")
        )
    click.echo(f"{rendered.video}: {rendered.num_frames} frames; masks in {rendered.sidecar}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def keygen(folder: Path) -> None:
    """Make keys in DIR, for a server or for a trainer.

    A server that other machines reach needs them, and each trainer on another machine.
    DIR/NAME.secret stays here, where only its owner can read it. DIR/NAME.public is copied to the
    other side: a trainer's for --allow, a server's for --server-key.
    """
    from online.queue.keys import make_keys

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
    from online.analysis.continual import evaluate_continual, keep_continual
    from online.reports.heat_map import heat_map_figure
    from online.reports.report import write_report
    from online.scores.matrix import to_json

    with progress_line() as show:
        continual = evaluate_continual(
            run,
            store,
            against=against,
            holdout=holdout,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    # what cannot be written has been said by then
    click.echo(to_json(continual).decode() if as_json else continual_text(continual))
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "continual.json").write_bytes(to_json(continual))
            (out / "continual.png").write_bytes(heat_map_figure(continual))
    finally:
        keep_continual(run, continual)
    report = write_report(run)
    if not as_json:
        click.echo(f"report: {report}")


def _server_keys(keys: Path | None, allow: Path | None) -> ServerKeys | None:
    if keys is None and allow is None:
        return None
    from online.queue.security import ServerKeys

    if keys is None or allow is None:
        raise click.UsageError("--keys DIR and --allow PATH need each other")
    return ServerKeys(keys, allow)


def _trainer_keys(keys: Path | None, servers: tuple[Path, ...], count: int) -> list[TrainerKeys]:
    """One for each of `count` addresses, or none at all."""
    if keys is None and not servers:
        return []
    from online.queue.security import TrainerKeys

    if keys is None or not servers or not count:
        raise click.UsageError("--connect ADDR, --keys DIR and --server-key FILE need each other")
    if len(servers) not in (1, count):
        raise click.UsageError(
            f"{len(servers)} --server-key for {count} --connect; give one for all, or one for each"
        )
    each = servers * count if len(servers) == 1 else servers
    return [TrainerKeys.load(keys, server) for server in each]


def _record_settings(**settings: Any) -> RecordSettings:
    from ingest.store.records import RecordSettings

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


def _report_outcome(outcome: Outcome, run: Path) -> None:
    from online.reports.verdict import verdict
    from online.runs.log import read_run

    if outcome.signal_number is not None:
        saved = f"at step {outcome.step}, saved" if outcome.step else "before the first step"
        goes_on = "makes the last probe of" if outcome.lacks_only_probe else "continues"
        click.echo(f"stopped {saved}; the same command {goes_on} {run}")
        sys.exit(128 + outcome.signal_number)
    if outcome.step > outcome.first_step:
        click.echo(f"{outcome.reason} at step {outcome.step}; {received_text(outcome)}")
        if outcome.spent is not None:
            click.echo(spent_text(outcome.spent))
    else:
        probed = "only its probe was made" if outcome.made_probe else "nothing was left to do"
        click.echo(
            f"{outcome.reason} at step {outcome.step} already: {probed}; larger --steps or "
            "--minutes learn on"
        )
    if outcome.evaluation is not None:
        click.echo(evaluation_text(outcome.evaluation))
        click.echo(verdict(read_run(run)))
    click.echo(f"report: {outcome.report}")


if __name__ == "__main__":
    main()
