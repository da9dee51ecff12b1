"""A live page next to a command that learns or records."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


@contextmanager
def watched_page(path: str | Path, *, wanted: bool) -> Iterator[None]:
    """Show a run or a store on a page for as long as this lasts, if that is `wanted`.

    Its address is printed as soon as it is there: the command does not wait for it.
    """
    if not wanted:
        yield
        return
    from online.watch.process import PageProcess

    def tell() -> None:
        address = page.address()
        if not is_over.is_set():
            click.echo(
                f"watch at {address}" if address else f"no page: {page.failure()}", err=not address
            )

    is_over = threading.Event()
    with PageProcess(path) as page:
        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            is_over.set()
            page.end()
            teller.join()
