"""One line of progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

LOADING = "loading PyTorch"
"""The first line of a command that computes."""
PLAIN_SECONDS = 5.0
"""Where there is no terminal to redraw a line on, one is printed this often."""


@contextmanager
def progress_line(
    first: str | None = None, *, says_end: bool = True
) -> Iterator[Callable[..., None]]:
    """A function that shows one line of progress: redrawn on a terminal, else now and then.

    It takes the parts of the line, in order of importance. A `first` line is shown at once: what a
    command imports afterwards may take seconds. Without `says_end` the last line may be left out,
    where results say how far it came.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        def redraw(*parts: str) -> None:
            text = fitted(parts, live.console.width)
            live.update(Text(text, no_wrap=True, overflow="ellipsis"))

        begun = None if first is None else Text(first)
        console = Console(stderr=True)
        with Live(begun, console=console, transient=True, refresh_per_second=8) as live:
            yield redraw
        return
    if first is not None:
        click.echo(first, err=True)
    shown_at = -PLAIN_SECONDS
    waiting: tuple[str, ...] = ()

    def show(*parts: str) -> None:
        nonlocal shown_at, waiting
        waiting = parts
        if time.monotonic() - shown_at >= PLAIN_SECONDS:
            shown_at, waiting = time.monotonic(), ()
            click.echo("  ".join(parts), err=True)

    yield show
    if waiting and says_end:  # how far it came at last
        click.echo("  ".join(waiting), err=True)


def fitted(parts: Sequence[str], columns: int) -> str:
    """The first part, and of the others in turn those for which a line has room."""
    line, *others = parts
    for part in others:
        if len(line) + 2 + len(part) <= columns:
            line += f"  {part}"
    return line
