"""Where an error becomes one line, and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, NoReturn

import click

from ingest.errors import IngestError


class Terminated(BaseException):
    """SIGTERM came to a command that has nothing to save; like KeyboardInterrupt, no error."""


class OneLineErrors(click.Group):
    """The one place where an error becomes one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Terminated) as stopped:
            click.echo("stopped; run the same command again", err=True)
            sent = signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT
            sys.exit(128 + sent)
        except Exception as error:
            if isinstance(error, _known_errors()):
                fail(error)
            if isinstance(error, OSError):
                fail(f"{error.filename or 'input/output'}: {error.strerror or error}")
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind, so that half-written files go, once: a second SIGTERM ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    raise Terminated


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
