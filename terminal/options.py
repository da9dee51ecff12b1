"""Options that several commands share, and what the commands make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terminal.parameters import Finite, FrameSize

if TYPE_CHECKING:
    from ingest.store.records import RecordSettings

size_option = click.option(
    "--size",
    type=FrameSize(),
    default="128",
    show_default=True,
    help="Frames to store: squares of SIDE pixels, WIDTHxHEIGHT, or as the source has them.",
)
live_size_option = click.option(
    "--size",
    type=FrameSize(takes_native=False),
    default="128",
    show_default=True,
    help="Frames to store: squares of SIDE pixels, or WIDTHxHEIGHT.",
)
codec_option = click.option(
    "--codec",
    type=click.Choice(["zstd", "lz4", "none"]),
    default="zstd",
    show_default=True,
    help="How to compress frames: zstd is smallest, lz4 is read faster, none is read fastest.",
)
holdout_option = click.option(
    "--holdout",
    type=Finite(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of each recording to hold out: its end, or for a camera every few minutes.",
)
recordings_option = click.option(
    "--recordings",
    metavar="GLOB",
    default="*",
    show_default=True,
    help="Names of the recordings to use.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting, such as optimizer.learning_rate=1e-3; `setcon presets NAME` lists "
    "them all.",
)
watch_option = click.option(
    "--watch",
    "watched",
    is_flag=True,
    help="Also show the run on a live page, as `setcon watch` does, and print its address.",
)
keys_option = click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with this machine's keys (see `setcon keygen`); required for remote peers.",
)
allow_option = click.option(
    "--allow",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Public keys of the trainers to accept: a .public file, or a folder of them.",
)


def record_settings(**settings: Any) -> RecordSettings:
    """How frames are to be stored; an impossible value is a usage error."""
    from ingest.store.records import RecordSettings

    try:
        return RecordSettings(**settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def warn_of_several_sizes(location: str) -> None:
    """Warn now of what training would refuse later."""
    from ingest.jobs import recordings_by_size
    from ingest.open import open_store

    store = open_store(location)
    sizes = recordings_by_size(store)
    if len(sizes) > 1:
        held = "; ".join(f"{w}x{h}: {_listed(names)}" for (w, h), names in sizes.items())
        click.secho(
            f"warning: {click.format_filename(store.location)}: recordings of several frame "
            f"sizes, which cannot be trained on together ({held}); ingest some again with another "
            "--size and --overwrite, or use `setcon train --recordings GLOB`",
            fg="yellow",
            err=True,
        )


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
