"""Commands that look at what was learned: eval, continual, render, embed, compare."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
import msgspec

from terminal.errors import fail
from terminal.options import (
    json_option,
    recordings_option,
)
from terminal.parameters import LOCATION, Finite
from terminal.progress import LOADING, progress_line
from terminal.recordings import (
    counted,
)
from terminal.runs import (
    comparison_text,
    continual_text,
    evaluation_text,
)

held_out_option = click.option(
    "--holdout",
    type=Finite(0, 1, max_open=True),
    help="Share of each recording to score on.  [default: what the run held out]",
)
out_option = click.option(
    "--out", type=click.Path(path_type=Path), help="Directory for the scores and their picture."
)


@click.command("eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=LOCATION)
@recordings_option
@held_out_option
@json_option
@out_option
@click.option("--continual", "as_continual", is_flag=True, hidden=True)
def evaluate(
    run: Path,
    store: str,
    recordings: str,
    holdout: float | None,
    as_json: bool,
    out: Path | None,
    as_continual: bool,
) -> None:
    """Probe RUN's newest checkpoint on the held-out part of STORE."""
    if as_continual:  # an option of older versions
        fail(f"--continual is now a command: use `setcon continual {run} {store}`")
    _refuse_bad_folder(out)
    with progress_line(LOADING) as show:
        from online.analysis.opened import evaluate_run

        findings = evaluate_run(
            run,
            store,
            recordings=recordings,
            holdout=holdout,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    from ingest.disk.durable import write_whole
    from online.reports.figures import panel_figure
    from online.reports.verdict import evaluation_verdict
    from online.scores.evaluation import save_evaluation

    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings.evaluation), indent=2))
    else:
        click.echo(evaluation_text(findings.evaluation))
        click.echo(evaluation_verdict(findings.evaluation))
    if out is not None:  # the scores are printed by now, if it cannot be written
        with _writing_into(out):
            save_evaluation(out, findings.evaluation, findings.panels)
            write_whole(out / "panels.png", panel_figure(findings.panels))


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=LOCATION)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Another run to compare with, such as one that learned in random order.",
)
@held_out_option
@json_option
@out_option
def continual(
    run: Path,
    store: str,
    against: Path | None,
    holdout: float | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Score RUN on every recording after each segment of its stream.

    RUN must have been trained with `--set training.keep_segments=true --set stream.order=stream`.
    The weights kept at the end of each recording are scored on every recording of the stream: the
    mBO of the segments of a model that finds objects, and of others what a probe draws.
    """
    _refuse_bad_folder(out)
    with progress_line(LOADING) as show:
        from online.analysis.continual import evaluate_continual, keep_continual

        found = evaluate_continual(
            run,
            store,
            against=against,
            holdout=holdout,
            progress=lambda what, share: show(what, f"{share:.0%}"),
        )
    from ingest.disk.durable import write_whole
    from online.reports.heat_map import heat_map_figure
    from online.reports.report import write_report
    from online.scores.matrix import to_json

    # the scores are printed first, in case they cannot be written
    click.echo(to_json(found).decode() if as_json else continual_text(found))
    try:
        if out is not None:
            with _writing_into(out):
                out.mkdir(parents=True, exist_ok=True)
                write_whole(out / "continual.json", to_json(found))
                write_whole(out / "continual.png", heat_map_figure(found))
    finally:
        keep_continual(run, found)
    report = write_report(run)
    if not as_json:
        click.echo(f"report: {report}")


def _writing_into(out: Path) -> AbstractContextManager[None]:
    """Say in one line that results cannot be written, which are printed by then."""
    from ingest.disk.durable import clear_write_errors

    return clear_write_errors(str(out), kept="the scores are those printed above")


def _refuse_bad_folder(out: Path | None) -> None:
    """Refuse at once a folder that the results, minutes later, could not be written to."""
    from ingest.store.output import folder_fault
    from online.errors import RunError

    if out is not None and (fault := folder_fault(out)):
        raise RunError(fault)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=LOCATION)
@click.argument("video", type=click.Path(path_type=Path), metavar="OUT.mp4")
@recordings_option
@click.option(
    "--part",
    type=click.Choice(["held_out", "all"]),
    default="held_out",
    show_default=True,
    help="Footage the run never learned from, or all of it.",
)
@click.option("--seconds", type=Finite(0, min_open=True), help="Seconds to render.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace OUT.mp4.")
def render(
    run: Path,
    store: str,
    video: Path,
    recordings: str,
    part: Any,
    seconds: float | None,
    overwrite: bool,
) -> None:
    """Render what RUN's newest checkpoint sees in STORE, as a video.

    Next to each frame: its segments, one colour per slot, and what the probe reconstructs from the
    slots.
    """
    with progress_line(LOADING) as show:
        from online.analysis.render import render_run

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


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store", type=LOCATION)
@click.argument("embeddings", type=click.Path(path_type=Path), metavar="OUT.h5")
@recordings_option
@click.option(
    "--alphas/--no-alphas",
    default=True,
    show_default=True,
    help="Also write the alpha mask of each slot. This fits a probe; masks take most of the file.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.h5.")
def embed(
    run: Path, store: str, embeddings: Path, recordings: str, alphas: bool, overwrite: bool
) -> None:
    """Write the slots of every frame of STORE to an HDF5 file.

    For each recording it has a group with slots (n, k, d), attention (n, k, rows, columns) and
    alphas (n, k, h, w) as shares of 255, pts_ns, gap, and held_out, which marks the frames that a
    run on STORE does not learn from. Slots that start at objects bring the number of each object,
    segments, centres, spreads, velocities and colours instead of attention. Places are (y, x) in
    pixels; the attribute `meaning` of each dataset has its unit.
    """
    with progress_line(LOADING) as show:
        from online.analysis.embed import embed_run

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


@click.command()
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
    """Compare runs on one page: scores, curves and slots.

    Runs on the same footage that differ only in `training.seed` are grouped: their scores are shown
    as mean and standard error, their curves as a mean in a band. Runs whose steps differ by more
    than a tenth have columns of their own. Where all runs are seeds of one
    setting, up to four also have a column each in the terminal.
    """
    from online.config import flat_defaults
    from online.reports.compare import remarks
    from online.reports.compare_page import check_page, write_comparison
    from online.reports.groups import group_runs

    check_page(out, overwrite=overwrite)
    groups = group_runs(runs, defaults=flat_defaults())
    click.echo(comparison_text(groups))
    for remark in remarks(groups):
        click.echo(remark)
    write_comparison(groups, out, overwrite=overwrite)  # the scores are printed, if it cannot be
    click.echo(f"comparison: {out}")


COMMANDS = (evaluate, continual, render, embed, compare)
