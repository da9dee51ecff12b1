"""Commands that read and write stores: ingest, info, verify, export, publish, scene."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import click
import msgspec

from ingest.addresses import without_secrets
from ingest.errors import IngestError
from terminal.errors import exit_if_any, fail
from terminal.options import (
    codec_option,
    json_option,
    record_settings,
    recordings_option,
    size_option,
    warn_of_several_sizes,
)
from terminal.parameters import LOCATION, Finite
from terminal.progress import progress_line
from terminal.recordings import (
    breaks_text,
    counted,
    footage_text,
    ingest_parts,
    left_out_text,
    published_text,
    publishing_parts,
    recording_text,
    uncommitted_text,
    verified_text,
    verifying_parts,
)

if TYPE_CHECKING:
    from ingest.fleet import Fleet
    from ingest.scenes import Scene
    from ingest.store.records import CommitRecord, Size


@click.command("ingest")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.argument("store", type=LOCATION)
@size_option
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad", "stretch"]),
    default="crop",
    show_default=True,
    help="How to fit frames of another shape: cut, add black bars, or distort.",
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
    "--track",
    type=click.IntRange(1),
    help="Which video track to read, from 1 on.  [default: the main one]",
)
@click.option(
    "--masks",
    type=click.Path(),
    metavar="PATH",
    help="Masks to score objects by: a folder of PNG files, one for each source, or a JSON file in "
    "COCO's format.  [default: those next to the sources]",
)
@click.option(
    "--format",
    "store_format",
    type=click.Choice(["zarr", "h5"]),
    help="Format of a new store.  [default: zarr]",
)
@codec_option
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Recordings to ingest at once.  [default: as many as cores, at most 4; with Ray, as many "
    "as the cluster has cores]",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who ingests: this process, or the workers of a Ray cluster.",
)
@click.option(
    "--ray",
    "ray_address",
    metavar="ADDRESS",
    help="HOST:PORT of the head of the Ray cluster.  [default: RAY_ADDRESS, or a cluster of this "
    "machine, which is started if need be]",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    help="With Ray: how often a recording is continued after its worker died.  [default: 20]",
)
@click.option("--overwrite", is_flag=True, help="Replace the recordings made from these sources.")
@click.option(
    "--durable/--no-durable",
    default=True,
    show_default=True,
    help="Sync to disk at each commit, so that a power cut loses nothing that was committed.",
)
def ingest_command(
    sources: tuple[str, ...],
    store: str,
    size: Size,
    fit: Any,
    fps: float | None,
    reader: str,
    track: int | None,
    masks: str | None,
    store_format: Any,
    codec: Any,
    workers: int | None,
    engine: Literal["local", "ray"],
    ray_address: str | None,
    retries: int | None,
    overwrite: bool,
    durable: bool,
) -> None:
    """Decode SOURCEs once and keep their frames in STORE.

    A source is a video file, its http(s), s3://, gs:// or az:// address, a folder of images, a
    folder or glob of either, a data set of LeRobot or laid out as DAVIS or YouTube-VIS, or an HDF5
    frame archive with groups train and test. Run the same command again to continue after an
    interruption.
    """
    if not sources:  # click gives a single word to STORE, which is the one that was left out
        raise click.UsageError(
            f"{store}: a STORE to write to is missing; for example: setcon ingest {store} store"
        )
    settings = record_settings(size=size, fit=fit, fps=fps, reader=reader)
    if engine != "ray" and (ray_address, retries) != (None, None):
        raise click.UsageError("--ray and --retries are for --engine ray")
    with progress_line("opening the sources") as show:
        from ingest.jobs import ingest_sources

        outcomes = ingest_sources(
            sources,
            store,
            settings,
            store_format=store_format,
            codec=codec,
            track=track,
            masks=masks,
            workers=workers,
            fleet=_fleet(ray_address, retries) if engine == "ray" else None,
            overwrite=overwrite,
            durable=durable,
            progress=lambda progress: show(*ingest_parts(progress)),
        )
    for outcome in outcomes:
        if outcome.recorded is not None:
            commit, recorded = outcome.recorded.commit, outcome.recorded
            click.echo(
                f"{recorded.name}: {recorded.status}, {footage_text(commit)}, "
                f"{breaks_text(commit)}{left_out_text(commit)}, took {recorded.seconds:.1f} s"
            )
        if outcome.warning is not None:
            click.secho(f"warning: {outcome.warning}", fg="yellow", err=True)
    if any(outcome.recorded is not None for outcome in outcomes):
        warn_of_several_sizes(store)
    exit_if_any(outcome.error for outcome in outcomes if outcome.error is not None)


def _fleet(address: str | None, retries: int | None) -> Fleet:
    from ingest.fleet import Fleet

    return Fleet(address=address) if retries is None else Fleet(address=address, retries=retries)


SHOWN_RECORDINGS = 500
"""After how many `info` shows how far it is: fewer take no time."""


@click.command()
@click.argument("store", type=LOCATION)
@json_option
def info(store: str, as_json: bool) -> None:
    """Show the contents of STORE."""
    from ingest.open import open_store

    opened = open_store(store)
    entries: list[dict[str, Any]] = []
    texts: list[str] = []
    damaged: list[IngestError] = []
    names = opened.recordings()

    def look(name: str) -> tuple[CommitRecord, int]:
        opened.settle(name)
        return opened.commit(name), opened.size_bytes(name)

    with progress_line() as show:
        for number, (name, asked) in enumerate(opened.for_each(look, names), start=1):
            try:
                commit, size = asked.result()
            except IngestError as error:
                entries.append({"name": name, "error": str(error)})
                damaged.append(error)
            else:
                told = msgspec.to_builtins(commit)
                told["source"]["path"] = without_secrets(told["source"]["path"])
                entries.append({"name": name, "size_bytes": size} | told)
                texts.append(recording_text(name, commit, size))
            if number % SHOWN_RECORDINGS == 0:
                show(f"{number} of {counted(len(names), 'recording')} read")
    uncommitted: list[str] = []
    try:
        uncommitted = opened.uncommitted()
    except IngestError as error:  # storage that fails now does not take away what was read
        damaged.append(error)
    if as_json:
        path = click.format_filename(opened.location)
        held = {"path": path, "format": opened.format, "recordings": entries}
        click.echo(json.dumps(held | {"uncommitted": uncommitted}, indent=2))
    else:
        head = f"{opened.format}, {counted(len(entries), 'recording')}"
        texts += map(uncommitted_text, uncommitted)
        click.echo("\n".join([f"{click.format_filename(opened.location)}: {head}", *texts]))
    exit_if_any(damaged)


@click.command()
@click.argument("store", type=LOCATION)
@recordings_option
@json_option
def verify(store: str, recordings: str, as_json: bool) -> None:
    """Read all of STORE and check every checksum, time and count.

    The exit code is 1 if anything is wrong. A recording that is still being written is checked up
    to its last commit.
    """
    from ingest.open import open_store
    from ingest.verify import verify_store

    opened = open_store(store)
    entries = []
    faulty = 0
    with progress_line(f"reading {click.format_filename(store)}", says_end=False) as show:
        for verified in verify_store(
            opened, recordings=recordings, progress=lambda at: show(*verifying_parts(at))
        ):
            faulty += not verified.ok
            if as_json:
                entries.append({"ok": verified.ok} | msgspec.to_builtins(verified))
            else:
                click.echo(verified_text(verified))
    path = click.format_filename(opened.location)
    if as_json:
        held = {"path": path, "format": opened.format, "recordings": entries}
        click.echo(json.dumps(held | {"uncommitted": opened.uncommitted()}, indent=2))
    else:
        for name in opened.uncommitted():
            click.echo(uncommitted_text(name))
    if faulty:
        fail(f"{path}: {counted(faulty, 'recording')} damaged; restore or ingest again")


@click.command()
@click.argument("store", type=LOCATION)
@click.argument("recording")
@click.argument("video", type=click.Path(path_type=Path), metavar="OUT.mp4")
@click.option(
    "--start",
    type=Finite(0),
    default=0.0,
    show_default=True,
    help="Where to start, in seconds after the first frame.",
)
@click.option("--seconds", type=Finite(0, min_open=True), help="Seconds to export.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace OUT.mp4 and its masks.")
def export(
    store: str,
    recording: str,
    video: Path,
    start: float,
    seconds: float | None,
    overwrite: bool,
) -> None:
    """Export RECORDING from STORE as a video.

    Frames keep their times. Masks are written to OUT.masks.h5.
    """
    from ingest.export import export_recording
    from ingest.open import open_store

    with progress_line(f"exporting {recording}") as show:
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


@click.command()
@click.argument("store", type=LOCATION)
@click.argument("url")
@recordings_option
@click.option("--overwrite", is_flag=True, help="Replace recordings that these do not continue.")
def publish(store: str, url: str, recordings: str, overwrite: bool) -> None:
    """Copy STORE into object storage at URL, such as s3://bucket/store.

    Run the same command again to continue after an interruption, or to add what was recorded
    since. Of a recording that is not complete, only whole shards are copied. Needs obstore: pip
    install -e '.[scale]'.
    """
    from ingest.open import open_store
    from ingest.publish import publish_store

    errors = []
    with progress_line(says_end=False) as show:
        for published in publish_store(
            open_store(store),
            url,
            recordings=recordings,
            overwrite=overwrite,
            progress=lambda at: show(*publishing_parts(at)),
        ):
            if published.error is None:
                click.echo(published_text(published))
            else:
                errors.append(published.error)
    exit_if_any(errors)


@click.command()
@click.argument(
    "scene",
    type=click.Choice(
        ["balls", "gridworld", "sprites", "three-object", "seven-object", "quilt", "tumble"]
    ),
)
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--frames", type=click.IntRange(1), default=900, show_default=True)
@click.option(
    "--fps",
    type=click.IntRange(1, 1000),
    help="Frames per second.  [default: 30, of quilt and tumble 10]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override another setting of the scene, such as size=64; a wrong KEY lists them.",
)
@click.option("--overwrite", is_flag=True, help="Replace VIDEO and its masks.")
def scene(
    scene: str,
    video: Path,
    frames: int,
    fps: int | None,
    seed: int,
    settings: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Render a procedural SCENE to VIDEO (.mp4), with its masks.

    The scene tumble is simulated and drawn in 3D by pybullet, an optional extra: pip install -e
    '.[tumble]'.
    """
    from ingest.errors import ExportError
    from ingest.scenes.video import render_scene
    from ingest.store.output import writing
    from ingest.video.mp4_writer import video_fault

    if fault := video_fault(video, what="a scene", overwrite=overwrite):
        raise ExportError(fault)
    config = _scene_config(scene, settings, num_frames=frames, fps=fps, seed=seed)
    with progress_line(f"rendering {frames} frames") as show, writing(video):
        rendered = render_scene(
            config, video, progress=lambda done: show("rendering", f"{done}/{frames} frames")
        )
    click.echo(f"{rendered.video}: {rendered.num_frames} frames; masks in {rendered.sidecar}")


def _scene_config(name: str, settings: Sequence[str], **options: int | None) -> Scene:
    """The configuration of a scene; a setting that it does not take is a usage error."""
    from ingest.scenes import SCENES

    kind = SCENES[name]
    types = {key: of for key, of in get_type_hints(kind).items() if key not in options}
    values: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in types:
            raise click.UsageError(f"--set {setting}: {name} takes {', '.join(types)}")
        try:
            values[key] = msgspec.convert(value, types[key], strict=False)
        except msgspec.ValidationError as error:
            raise click.UsageError(f"--set {setting}: {error}") from error
    try:
        return kind(**values)
    except ValueError as error:
        raise click.UsageError(f"{name}: {error}") from error


COMMANDS = (ingest_command, info, verify, export, publish, scene)
