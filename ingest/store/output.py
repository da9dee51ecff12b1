"""Files that a command is asked to write: where they may go, and what a refusal to write means.

Each is whole or absent; its writer ensures that. No option replaces a file of another ending than
the command writes, or part of a store.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.disk.durable import clear_write_errors
from ingest.store.layout import is_store


def output_fault(
    path: Path, *others: Path, what: str, endings: tuple[str, ...], overwrite: bool
) -> str | None:
    """Why `what` may not be written to `path`, and `others` with it; None where it may."""
    if path.suffix.lower() not in endings:
        found, wanted = path.suffix or "no ending", " or ".join(endings)
        return f"{path}: {what} is written as {wanted}, not {found}; end it in {wanted}"
    folder = path.parent
    if not folder.exists():
        return f"{folder}: no such folder; make it, or name a file in another"
    if not folder.is_dir():
        return f"{folder}: is a file, not a folder; name another"
    if store := _store_around(folder):
        return f"{path}: is in the store {store}; name a file outside of it"
    for file in filter(Path.exists, (path, *others)):
        if not file.is_file():
            kind = "a directory" if file.is_dir() else "not an ordinary file"
            return f"{file}: is {kind}; name a file, new or old"
        if not overwrite:
            return f"{file}: exists; name another file, or use --overwrite"
    return None


def folder_fault(path: Path) -> str | None:
    """Why files may not be written into a folder, new or old; None where they may."""
    there = next(filter(Path.exists, (path, *path.absolute().parents)))
    if not there.is_dir():
        return f"{there}: is a file; name a directory"
    if store := _store_around(path):
        return f"{path}: is in the store {store}; name a directory outside of it"
    return None


def _store_around(folder: Path) -> Path | None:
    """The store that a folder is, or is in; a file with the name of its mark is not enough."""
    real = Path(os.path.realpath(folder))
    marked = filter(is_store, (real, *real.parents))
    return next((store for store in marked if (store / "recordings").is_dir()), None)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write the file into one clear StoreError."""
    with clear_write_errors(str(path), kept="the earlier file is unchanged"):
        yield
