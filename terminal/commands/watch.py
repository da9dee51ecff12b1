"""The command that shows runs on a live page: watch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from terminal.errors import Terminated


@click.command()
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; 0.0.0.0 for other machines, which need the token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen at; 0 takes a free one.  [default: 8642, or a free one]",
)
@click.option(
    "--token",
    envvar="SETCON_WATCH_TOKEN",
    help="Token that browsers need; rather set SETCON_WATCH_TOKEN, which others cannot read.  "
    "[default: a new one, where other machines can connect]",
)
def watch(runs: tuple[Path, ...], host: str, port: int | None, token: str | None) -> None:
    """Show runs on a live page in a browser, until Ctrl-C.

    RUN is the --run of a training, a folder of such, or a store. The page reads files, so it shows
    a run that is at work here or on a machine whose disk is mounted here, and one that has ended:
    the newest frame and what each slot sees of it, what the latest probe found, curves, queue,
    camera and replay, events and the time left. Of a store it shows the newest frame and what was
    counted.

    Other machines can only connect if --host lets them, and only with the token in the address that
    is printed. The connection is not encrypted: over a network that others use, rather forward the
    port with ssh.
    """
    from online.watch.runs import Runs
    from online.watch.server import serve_page

    # a signal is how it ends
    with suppress(KeyboardInterrupt, Terminated):
        serve_page(
            Runs(runs),
            host=host,
            port=port,
            token=token,
            ready=lambda address: click.echo(f"watch at {address} until Ctrl-C"),
        )


COMMANDS = (watch,)
