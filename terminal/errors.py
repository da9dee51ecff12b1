"""Where an error becomes one line, and an exit code."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any, NoReturn

import click

from ingest.disk.signals import has_to_wait, is_repeat, is_uninterrupted, obeyed
from ingest.errors import IngestError
from ingest.printable import message
from online.ranks import rank_here

_AGAIN_SECONDS = 0.01
"""Delay after which an exception that Python swallowed is raised again."""


_FULL = "free some space and run the same command again"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EEXIST: "name another one",
    errno.ENOTDIR: "name a folder that is not inside a file",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "free some memory and run the same command again",
}


class Terminated(BaseException):
    """SIGTERM came to a command that has nothing to save; like KeyboardInterrupt, not an error."""


class HarmlessLines(logging.Formatter):
    """Log lines in which names from files and peers do nothing to the terminal, and addresses tell
    no secrets."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, without a traceback."""
        return message(super().formatMessage(record))


class OneLineErrors(click.Group):
    """The one place where an error becomes one line and an exit code."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command as the whole of this process, which signals end."""
        _Unwinding().install()
        return super().__call__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Terminated) as stopped:
            if rank_here().rank == 0:  # for all
                click.echo("stopped; run the same command again", err=True)
            sys.exit(128 + _signal_of(stopped))
        except Exception as error:
            if isinstance(error, _known_errors()):
                fail(error)
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                of_path = "check the path and its rights" if error.filename else ""
                remedy = _REMEDIES.get(error.errno or 0, of_path)
                what = f"{error.filename or 'input/output'}: {error.strerror or error}"
                fail(f"{what}; {remedy}" if remedy else what)
            raise


class _Unwinding:
    """Raises on the first signal, so that half-written files are removed; exits on the second, if
    that is not a repeat of the first.

    No exception leaves `__del__` or the callback of a weak reference: Python passes it to
    `sys.unraisablehook`, which prints it, and continues. The hook set here starts a timer
    instead, and the exception is raised again a moment later.
    """

    def __init__(self) -> None:
        self._has_raised = False
        self._lost: int | None = None
        """The signal whose exception was swallowed, until it is raised again."""
        self._is_in_hook = False
        self._print_unraisable = sys.unraisablehook

    def install(self) -> None:
        """Handle the signals that this process does not ignore."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
                # at its very end Python restores the default, which kills: all is done by then
                atexit.register(signal.signal, number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, self._raise_lost)
        sys.unraisablehook = self._unraisable

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if is_repeat():
            return
        if self._has_raised:
            os._exit(128 + number)
        if not has_to_wait(number):
            obeyed()
            self._raise(number)

    def _raise(self, number: int) -> NoReturn:
        self._has_raised = True
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt | Terminated):
            return self._print_unraisable(unraisable)
        self._is_in_hook = True
        self._lost = _signal_of(unraisable.exc_value)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        self._is_in_hook = False

    def _raise_lost(self, number: int, frame: FrameType | None) -> None:
        if self._is_in_hook or is_uninterrupted():  # which no exception leaves, or may leave
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        elif self._lost is not None:
            lost, self._lost = self._lost, None
            self._raise(lost)


def _signal_of(stopped: KeyboardInterrupt | Terminated) -> signal.Signals:
    return signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT


def _known_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is one line for people, from the packages that were imported."""
    from online.errors import OnlineError

    known: list[type[Exception]] = [IngestError, OnlineError]
    if "setcon" in sys.modules:
        from setcon.errors import SetConError

        known.append(SetConError)
    return tuple(known)


def fail(error: object) -> NoReturn:
    """Print what is wrong, and exit."""
    tell(error)
    sys.exit(1)


def exit_if_any(errors: Iterable[object]) -> None:
    """Print each error on its own line; with any, exit with code 1."""
    printed = [tell(error) for error in errors]
    if printed:
        sys.exit(1)


def tell(error: object) -> None:
    """Print what is wrong, as one red line."""
    click.secho(f"error: {message(str(error))}", fg="red", err=True)
