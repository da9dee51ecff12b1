"""Where an error becomes one line, and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import click

from ingest.errors import IngestError


class OneLineErrors(click.Group):
    """The one place where an error becomes one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("stopped; run the same command again", err=True)
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            if isinstance(error, _known_errors()):
                fail(error)
            if isinstance(error, OSError):
                fail(f"{error.filename or 'input/output'}: {error.strerror or error}")
            raise


def _known_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is one line for people; of the packages that were imported."""
    from online.errors import OnlineError

    known: list[type[Exception]] = [IngestError, OnlineError]
    if "setcon" in sys.modules:
        from setcon.errors import SetConError

        known.append(SetConError)
    return tuple(known)


def fail(error: object) -> NoReturn:
    """Say what is wrong, and end."""
    tell(error)
    sys.exit(1)


def exit_if_any(errors: Iterable[object]) -> None:
    """What went wrong while the rest went well: a line each, and the exit code."""
    told = [tell(error) for error in errors]
    if told:
        sys.exit(1)


def tell(error: object) -> None:
    """Say what is wrong, in a line of red."""
    click.secho(f"error: {error}", fg="red", err=True)
