"""setcon on the command line: the group of commands, which live in `terminal.commands`.

Imports of torch and of whatever needs it stay inside the commands that do, so that `ingest`,
`capture`, `info` and `serve` start fast.
"""

from __future__ import annotations

import logging
import os

import click

from terminal.commands import completion, look, serve, store, train, watch
from terminal.errors import HarmlessLines, OneLineErrors


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Show the logs of libraries, on stderr.")
@click.version_option(package_name="setcon")
def main(verbose: bool) -> None:
    """Learn objects from hours of video while it streams."""
    # read once, when torch loads OpenMP: threads that spin at a barrier keep the one they wait for
    # off its core, which makes a step ten times slower next to other work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    shown = logging.StreamHandler()
    shown.setFormatter(HarmlessLines("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[shown])
    if verbose:
        import av.logging

        # FFmpeg prints by itself: through Python's logging its threads would wait for Python's lock
        av.logging.restore_default_callback()
        av.logging.set_libav_level(av.logging.INFO)


for module in (store, serve, train, look, watch, completion):
    for command in module.COMMANDS:
        main.add_command(command)


if __name__ == "__main__":
    main()
