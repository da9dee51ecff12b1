"""Files that a command is told to write: where they may go, and what a refusal to write means.

Each is whole or absent; its writer sees to that. No option replaces what is of another kind than
the command writes, or part of a store.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.durable import clear_write_errors
from ingest.layout import is_store


def output_fault(
    path: Path, *beside: Path, what: str, endings: tuple[str, ...], overwrite: bool
) -> str | None:
    """Why `what` may not be written to `path`, and files `beside` it; None where it may."""
    if path.suffix not in endings:
        found, wanted = path.suffix or "no ending", " or ".join(endings)
        return f"{path}: {what} is written as {wanted}, not {found}; end it in {wanted}"
    folder = path.parent
    if not folder.exists():
        return f"{folder}: no such folder; make it, or name a file in another"
    if not folder.is_dir():
        return f"{folder}: is a file, and no folder; name another"
    if store := next(filter(is_store, path.resolve().parents), None):
        return f"{path}: lies in the store {store}; name a file outside of it"
    for file in filter(Path.exists, (path, *beside)):
        if not file.is_file():
            kind = "a directory" if file.is_dir() else "no ordinary file"
            return f"{file}: is {kind}; name a file, new or old"
        if not overwrite:
            return f"{file}: exists; name another file, or use --overwrite"
    return None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write the file into one clear StoreError."""
    with clear_write_errors(str(path), kept="what was there before is as it was"):
        yield
