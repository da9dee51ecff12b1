"""Commands that learn: train, demo, presets."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from online.made_for import MADE_FOR, Footage, mismatch
from online.ranks import rank_here
from online.runs.names import CONFIG_FILE
from online.scores.numbers import duration
from terminal.options import (
    holdout_option,
    keys_option,
    settings_option,
    watch_option,
)
from terminal.pages import watched_page
from terminal.parameters import LOCATION, Finite
from terminal.progress import LOADING, progress_line
from terminal.ranks import launch, with_shards
from terminal.recordings import (
    ingest_parts,
)
from terminal.runs import (
    evaluation_text,
    received_text,
    spent_text,
    status_parts,
)

if TYPE_CHECKING:
    import torch

    from online.config import RunConfig
    from online.look import Look
    from online.queue.keys import TrainerKeys
    from online.session.outcome import Outcome
    from online.session.status import Status


@click.command()
@click.argument("store", type=LOCATION, required=False)
@click.option(
    "--connect",
    "addresses",
    multiple=True,
    metavar="ADDR",
    help="Learn from this server instead of STORE; may be given several times.",
)
@keys_option
@click.option(
    "--server-key",
    "server_keys",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="The server's .public file: one for all servers, or one for each --connect.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory of the run. An existing run is continued.",
)
@click.option("--preset", default="demo", show_default=True, help="See `setcon presets`.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings from a TOML file instead of a preset, such as the config.toml of a run.",
)
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Begin with the newest model of this run, and by default with its settings.",
)
@click.option(
    "--device",
    metavar="NAME",
    help="What to compute on: cpu, cuda or cuda:1.  [default: a GPU where there is one]",
)
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
    help="Learn for at most this long, earlier starts of the run included.",
)
@click.option(
    "--ranks",
    type=click.IntRange(1),
    help="Learn with so many processes of this machine, which share every batch.",
)
@holdout_option
@watch_option
@click.pass_context
def train(
    context: click.Context,
    store: str | None,
    addresses: tuple[str, ...],
    keys: Path | None,
    server_keys: tuple[Path, ...],
    run: Path,
    preset: str,
    config_file: Path | None,
    init: Path | None,
    device: str | None,
    recordings: str | None,
    settings: tuple[str, ...],
    steps: int | None,
    minutes: float | None,
    ranks: int | None,
    holdout: float,
    watched: bool,
) -> None:
    """Learn from STORE or from servers, and probe held-out footage.

    Run the same command again to continue from the last checkpoint. Ctrl-C saves and stops; a
    second one, a second or more later, stops at once.

    The progress line shows, for a camera, how old frames are when they arrive (behind) and how
    many clips were skipped because they were too old or already deleted (skipped). For servers it
    shows what has arrived but is not used yet (queued, bounded by stream.credit_bytes), how often
    the connection was opened again (reconnects), and how many messages were damaged or late and
    were requested again (discarded). The last lines count the clips received and inserted.

    With --ranks, or under torchrun, several processes take every step together, each on its own
    GPU where there are some. See docs/scaling.md.
    """
    if (store is None) == (not addresses):
        raise click.UsageError("give either STORE or --connect ADDR")
    chosen = context.get_parameter_source("preset") == ParameterSource.COMMANDLINE
    if config_file is not None and chosen:
        raise click.UsageError("--config and --preset both choose the settings; give one of them")
    trainer_keys = _trainer_keys(keys, server_keys, len(addresses))
    if config_file is None and init is not None and not chosen:
        config_file = _config_of(init)
    config = _config(preset, settings, steps=steps, recordings=recordings, file=config_file)
    here = rank_here()
    ranks_wanted = here.size if here.size > 1 else ranks or 1
    config = with_shards(config, run, ranks_wanted, settings=settings)
    _check_places(store, run, preset)
    if ranks is not None and ranks > 1 and here.size == 1:
        verbose = ["-v"] if context.find_root().params.get("verbose") else []
        sys.exit(launch(ranks, [*verbose, *_typed(context)]))
    speaks = here.rank == 0  # for all
    if not speaks:
        logging.getLogger().setLevel(logging.ERROR)
    # first of all: importing torch takes seconds
    source = preset if config_file is None else str(config_file)
    together = f", {here.size} ranks" if here.size > 1 else ""
    if speaks:
        click.echo(f"{run}: {source}, {config.training.steps:,} steps{together}", err=True)
    unfit = None if config_file is not None or not speaks else _unfit(preset, store, config)
    if unfit is not None:
        click.secho(f"warning: {unfit}", fg="yellow", err=True)
    with watched_page(run, wanted=watched and speaks), progress_line() as show:
        from online.session.start import train as train_run
        from online.session.wiring import Start
        from online.session.world import World

        on = _device(device)
        if speaks:
            click.echo(_computes(config, on), err=True)
        has_warned = unfit is None or minutes is not None  # which is then how long it takes

        def observe(status: Status) -> None:
            nonlocal has_warned
            if not has_warned and status.eta_seconds is not None and status.activity == "learning":
                has_warned = True
                left = duration(status.eta_seconds)
                slow = f"warning: at this rate all {status.steps:,} steps take {left}"
                click.secho(slow, fg="yellow", err=True)
            show(*status_parts(status))

        with World.joined(on) as world:
            start = Start(
                run=run,
                config=config,
                store=store,
                holdout=holdout,
                addresses=addresses,
                keys=trainer_keys,
                minutes=minutes,
                device=on,
                init=init,
                observers=[observe] if speaks else [],
                command=command_line(context),
                world=world,
            )
            outcome = train_run(start)
    if not speaks:
        return
    _report_outcome(outcome, run, steps=config.training.steps)
    if watched:
        click.echo(f"the page is closed; to open it again: setcon watch {run}")


@click.command()
@click.argument("video", type=click.Path(path_type=Path), required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Directory for everything the demo makes.  [default: setcon-demo, or setcon-demo-VIDEO]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Seed of the recording, the model and all sampling.  [default: 0]",
)
@click.option(
    "--minutes",
    type=Finite(0, min_open=True),
    help="Learn for at most this long, earlier starts included.",
)
@settings_option
@watch_option
def demo(
    video: Path | None,
    out: Path | None,
    seed: int | None,
    minutes: float | None,
    settings: tuple[str, ...],
    watched: bool,
) -> None:
    """Ingest, serve, train, probe and report with one command.

    It learns, by the preset `things`, to find what moves on its own. Without VIDEO it renders
    objects on a quilt of the same colours, with ground-truth masks. Of VIDEO it takes the middle
    square at 128x128; `setcon ingest --fit` has other ways. It says whether the camera moves, which
    `things` allows for by itself, and warns of footage that is too short or in which nothing moves.
    The demo runs slower on a busy machine; --minutes limits the training time.
    """
    out = out or Path("setcon-demo" if video is None else f"setcon-demo-{video.stem}")
    if seed is not None:
        if any(setting.startswith("training.seed") for setting in settings):
            raise click.UsageError(
                "--seed and --set training.seed are the same setting; give only one"
            )
        settings = (*settings, f"training.seed={seed}")
    if video is not None:  # before PyTorch is loaded
        from ingest.video.sources import expand

        expand(str(video))
    with ExitStack() as stack:
        show = stack.enter_context(progress_line(LOADING))
        from online.demo import (
            PICTURE,
            PRESET,
            RUN,
            SCENE,
            SCENE_SETTINGS,
            STORE,
            DemoProgress,
            run_demo,
        )

        if video is None:
            settings = (*SCENE_SETTINGS, *settings)
        config = _config(PRESET, settings)
        again = ["setcon", "train", str(out / STORE), "--run", str(out / RUN), "--preset", PRESET]
        again += [word for setting in settings for word in ("--set", setting)]
        stack.enter_context(watched_page(out / RUN, wanted=watched))
        outcome = run_demo(
            out,
            config,
            video=video,
            minutes=minutes,
            progress=DemoProgress(
                rendering=lambda done: show("rendering", f"{done}/{SCENE.num_frames} frames"),
                ingesting=lambda progress: show(*ingest_parts(progress)),
                looked=lambda look: _tell_look(look, PRESET),
            ),
            observe=lambda status: show(*status_parts(status)),
            command=again,
        )
    _report_outcome(outcome, out / RUN, steps=config.training.steps)
    click.echo(f"picture: {out / PICTURE}")
    if watched:
        click.echo(f"the page is closed; to open it again: setcon watch {out / RUN}")


def _tell_look(look: Look, preset: str) -> None:
    """What footage looks like, the preset for it, and what is wrong with it."""
    other = "fixed" if look.camera_moves else "moving"
    click.echo(f"{look.text}; preset {preset}, which suits a {other} one as well", err=True)
    for fault in look.faults:
        click.secho(f"warning: {fault}", fg="yellow", err=True)


@click.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or explain every setting of one and how to ingest for it."""
    from online.config import load_preset, preset_comment, preset_names
    from online.explain import explained

    if name is None:
        for preset in preset_names():
            click.echo(f"{preset:<14}{preset_comment(preset)[0]}")
    else:
        head = [f"# {line}".rstrip() for line in preset_comment(name)]
        head.append(f"# Made for footage that was ingested with {MADE_FOR[name].options}.")
        click.echo("\n".join([*head, "", explained(load_preset(name))]), nl=False)


def _trainer_keys(keys: Path | None, servers: tuple[Path, ...], count: int) -> list[TrainerKeys]:
    """Keys for each of `count` addresses, or an empty list."""
    if keys is None and not servers:
        return []
    from online.queue.keys import TrainerKeys

    if keys is None or not servers or not count:
        raise click.UsageError(
            "--keys DIR and --server-key FILE go together, and need --connect ADDR"
        )
    if len(servers) not in (1, count):
        raise click.UsageError(
            f"{len(servers)} --server-key for {count} --connect; give one for all, or one for each"
        )
    each = servers * count if len(servers) == 1 else servers
    return [TrainerKeys.load(keys, server) for server in each]


def _config(
    preset: str,
    settings: Iterable[str],
    *,
    steps: int | None = None,
    recordings: str | None = None,
    file: Path | None = None,
) -> RunConfig:
    from online.config import load_config, load_preset

    more = [] if steps is None else [f"training.steps={steps}"]
    if recordings is not None:  # as a TOML string, or the name `1` would be a number
        more.append(f"stream.recordings={json.dumps(recordings, ensure_ascii=False)}")
    if file is not None:
        return load_config(file, [*settings, *more])
    return load_preset(preset, [*settings, *more])


def _check_places(store: str | None, run: Path, preset: str) -> None:
    """Refuse what can be refused before the first line; what is far away is asked after it."""
    from online.runs.names import check_run_folder

    check_run_folder(run)
    if store is None:
        return
    if Path(store).is_file():
        raise click.UsageError(
            f"{store}: is a file, not a store; ingest it first: setcon ingest {shlex.quote(store)} "
            f"STORE {MADE_FOR[preset].options if preset in MADE_FOR else ''}".rstrip()
        )
    from ingest.store.blobs import open_blobs
    from ingest.store.layout import StoreLayout

    blobs = open_blobs(store)
    if not blobs.is_remote:
        StoreLayout.open(blobs)


def _config_of(run: Path) -> Path:
    """The settings of a run.

    Raises RunError: there is no run.
    """
    from online.runs.log import not_a_run

    if not (run / CONFIG_FILE).exists():
        raise not_a_run(run)
    return run / CONFIG_FILE


def _unfit(preset: str, store: str | None, config: RunConfig) -> str | None:
    """How the footage of a store differs from what the preset is made for."""
    from ingest.open import open_store

    if store is None:
        return None  # a server tells later
    opened = open_store(store)
    found = []
    names = [n for n in opened.recordings() if fnmatchcase(n, config.stream.recordings)]
    for _, asked in opened.for_each(opened.commit, names):
        commit = asked.result()
        seconds = commit.duration_seconds
        fps = (commit.length - 1) / seconds / config.frame_stride if seconds else None
        found.append(Footage(width=commit.width, height=commit.height, fps=fps))
    return mismatch(preset, found)


def _device(name: str | None) -> torch.device:
    """The device of that name; by default a GPU where there is one."""
    import torch

    from online.training.models import default_device, own_device

    if name is None:
        return default_device()
    try:
        device = own_device(torch.device(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        found = torch.accelerator.current_accelerator()
        others = (
            [f"{found.type}:{i}" for i in range(torch.accelerator.device_count())] if found else []
        )
        reason = str(error).splitlines()[0].partition(". ")[0]  # MPS adds pages
        raise click.UsageError(
            f"--device {name}: cannot be used ({reason}); this machine has "
            f"{', '.join(['cpu', *others])}"
        ) from error
    return device


def _computes(config: RunConfig, device: torch.device) -> str:
    """The first line: what it computes on, and how."""
    from online.training.models import uses_bfloat16

    precision = config.training.precision
    if precision != "float64":
        precision = "bfloat16" if uses_bfloat16(precision, device) else "float32"
    return f"{precision} on {device}"


def command_line(context: click.Context) -> list[str]:
    """The command as it was typed, without --steps and --minutes: by then they are used up."""
    return ["setcon", *_typed(context, without=("steps", "minutes"))]


def _typed(context: click.Context, *, without: Sequence[str] = ()) -> list[str]:
    words = [str(context.info_name)]
    for parameter in context.command.params:
        typed = context.get_parameter_source(parameter.name or "") == ParameterSource.COMMANDLINE
        if not typed or parameter.name in without:
            continue
        value = context.params[parameter.name]
        for each in value if isinstance(value, tuple) else (value,):
            words += [] if isinstance(parameter, click.Argument) else [parameter.opts[0]]
            words += [] if getattr(parameter, "is_flag", False) else [str(each)]
    return words


def _report_outcome(outcome: Outcome, run: Path, *, steps: int) -> None:
    from online.reports.verdict import learned_so_far, verdict
    from online.runs.log import read_run

    if outcome.reason == "stopped":
        saved = f"at step {outcome.step}, saved" if outcome.step else "before the first step"
        goes_on = "makes the last probe of" if outcome.lacks_only_probe else "continues"
        click.echo(f"stopped {saved}; the same command {goes_on} {run}")
        if outcome.signal_number is None or rank_here().size > 1:
            return  # torchrun would start ranks again that end with another code
        sys.exit(128 + outcome.signal_number)
    if outcome.step > outcome.first_step:
        click.echo(f"{outcome.reason} at step {outcome.step}; {received_text(outcome)}")
        if outcome.spent is not None:
            click.echo(spent_text(outcome.spent))
    else:
        probed = "only its probe was made" if outcome.made_probe else "nothing was left to do"
        click.echo(
            f"{outcome.reason} at step {outcome.step} already: {probed}; raise --steps or "
            "--minutes to learn more"
        )
    if outcome.evaluation is not None:
        click.echo(evaluation_text(outcome.evaluation))
        click.echo(verdict(read_run(run)))
        if outcome.reason == "time is up":
            click.echo(
                f"{learned_so_far(outcome.step, steps)}; to continue, repeat the command with more "
                "--minutes, or without it"
            )
    click.echo(f"report: {outcome.report}")


COMMANDS = (train, demo, presets)
