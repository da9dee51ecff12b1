"""The files that both stores have in common: the store's mark, its folders and commit records."""

import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from ingest.disk.durable import (
    PARTIAL,
    FileLock,
    clear_write_errors,
    is_locked,
    sync_folder,
    write_whole,
)
from ingest.errors import NoSuchRecordingError, NotAStoreError, RecordingExistsError, StoreError
from ingest.store.records import CommitRecord, RecordSettings, Source, StoreFormat

VERSION = 1
RELEASED_VERSION = 2
"""Of a commit record of which frames were let go of."""
_MARK = "store.json"
_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What garbage instead of JSON raises."""
_NAME = re.compile(r"[^\W_][\w.+ ()@=-]{0,199}")


def is_store(path: Path) -> bool:
    """Whether a directory is marked as a store, readable or not."""
    return (path / _MARK).exists()


class _Mark(msgspec.Struct, frozen=True):
    what: Literal["setcon store"]
    format: StoreFormat
    version: int


class StoreLayout:
    """Where everything lies in a store, and the reading and writing of commit records."""

    def __init__(self, path: Path, store_format: StoreFormat, *, durable: bool = True) -> None:
        self.path = path
        self.format: StoreFormat = store_format
        self.durable = durable
        self._recordings = path / "recordings"

    @classmethod
    def create(
        cls, path: Path, store_format: StoreFormat, *, durable: bool = True
    ) -> "StoreLayout":
        """Mark a new or empty directory as a store."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise _not_a_store(path)
        mark = _Mark("setcon store", store_format, VERSION)
        with clear_write_errors(str(path)):
            (path / "recordings").mkdir(parents=True, exist_ok=True)
            write_whole(path / _MARK, msgspec.json.encode(mark))
            sync_folder(path.parent)
        return cls(path, store_format, durable=durable)

    @classmethod
    def open(cls, path: Path, *, durable: bool = True) -> "StoreLayout":
        """Find an existing store; NotAStoreError for anything else."""
        try:
            mark = msgspec.json.decode((path / _MARK).read_bytes(), type=_Mark)
        except (OSError, *_UNREADABLE) as error:
            if not path.exists():
                raise NotAStoreError(
                    f"{path}: no such store; make one with `setcon ingest SOURCE {path}`"
                ) from error
            raise _not_a_store(path) from error
        if mark.version != VERSION:
            raise NotAStoreError(
                f"{path}: store of version {mark.version}, this program reads {VERSION}; "
                "use the program that wrote it, or ingest again"
            )
        return cls(path, mark.format, durable=durable)

    def folder(self, name: str) -> Path:
        """Folder of one recording; StoreError for a name that cannot be a folder."""
        if not _NAME.fullmatch(name):
            raise StoreError(
                f"{self.path}: {name!r} cannot name a recording; use up to 200 letters, digits, "
                "spaces and . _ + - ( ) @ =, beginning with a letter or digit"
            )
        return self._recordings / name

    def describe(self, name: str) -> str:
        """How messages call a recording."""
        return f"{self.path}: recording {name!r}"

    def recordings(self) -> list[str]:
        """Names of all recordings that have a commit record, sorted."""
        return sorted(path.parent.name for path in self._recordings.glob("[!.]*/commit.json"))

    def uncommitted(self) -> list[str]:
        """Names of folders without a commit record that nobody is writing, sorted."""
        folders = (path for path in self._recordings.glob("[!.]*") if path.is_dir())
        names = sorted(path.name for path in folders if not (path / "commit.json").exists())
        return [name for name in names if not self.is_being_written(name)]

    def commit(self, name: str) -> CommitRecord:
        """Read a commit record from disk."""
        return self.decode_commit(name, self.read_commit(name))

    def read_commit(self, name: str) -> bytes:
        """A commit record as it lies on disk: equal bytes are an equal record."""
        path = self.folder(name) / "commit.json"
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            names = ", ".join(self.recordings()) or "none"
            raise NoSuchRecordingError(
                f"{self.path}: no recording {name!r}; it holds: {names}"
            ) from None
        except OSError as error:
            raise _damaged_commit(path, error) from error

    def decode_commit(self, name: str, data: bytes) -> CommitRecord:
        """The record that `read_commit` gave the bytes of."""
        path = self.folder(name) / "commit.json"
        try:
            commit = msgspec.json.decode(data, type=CommitRecord)
        except _UNREADABLE as error:
            raise _damaged_commit(path, error) from error
        if commit.version not in (VERSION, RELEASED_VERSION):
            raise StoreError(
                f"{path}: version {commit.version}, this program reads up to {RELEASED_VERSION}; "
                "use the program that wrote it"
            )
        return commit

    def write_commit(self, name: str, commit: CommitRecord) -> None:
        """Make `commit` the truth; everything it speaks of must be on disk."""
        data = msgspec.json.encode(commit) + b"\n"
        durable = self.durable or commit.complete
        write_whole(self.folder(name) / "commit.json", data, durable=durable)

    def write_first_commit(self, name: str, commit: CommitRecord) -> None:
        """Make a new recording known, and its folder safe."""
        self.write_commit(name, commit)
        if self.durable:
            sync_folder(self._recordings)

    def lock(self, name: str) -> FileLock:
        """Keep every other writer off a recording."""
        where = self.describe(name)
        with clear_write_errors(where):
            return FileLock(self._lock_path(name), what=where)

    def is_being_written(self, name: str) -> bool:
        """Whether a living process holds the lock of a recording."""
        return is_locked(self._lock_path(name))

    def leftovers(self, name: str) -> list[Path]:
        """Files that a killed writer left half written; a writer at work has such files too."""
        found = sorted(self.folder(name).rglob(f"*{PARTIAL}"))
        if self.is_being_written(name):
            return []
        return [path for path in found if path.exists()]

    def unfinished(
        self, name: str, source: Source, settings: RecordSettings
    ) -> CommitRecord | None:
        """The record to continue from, None for a new recording; refuses a different one."""
        try:
            commit = self.commit(name)
        except NoSuchRecordingError:
            return None
        where = self.describe(name)
        if not commit.source.same_content(source):
            raise RecordingExistsError(
                f"{where}: made from {_described(commit.source)}, not from {_described(source)}; "
                "use --overwrite to replace it"
            )
        if commit.settings != settings:
            raise RecordingExistsError(
                f"{where}: made with {_difference(commit.settings, settings)}; use the same "
                "settings, or --overwrite to replace it"
            )
        return commit

    def remove(self, name: str) -> None:
        """Delete a recording; at no moment is a part of it seen as the whole."""
        folder = self.folder(name)
        if not folder.exists():
            return
        doomed = folder.with_name(f".{name}.{uuid.uuid4().hex}.removed")
        with clear_write_errors(self.describe(name)):
            folder.rename(doomed)
            sync_folder(self._recordings)
            shutil.rmtree(doomed)

    def size_bytes(self, name: str) -> int:
        """Bytes of all files of a recording."""
        size = 0
        for path in self.folder(name).rglob("*"):
            with suppress(FileNotFoundError):  # a writer has replaced it, or let go of it
                size += path.stat().st_size if path.is_file() else 0
        return size

    def _lock_path(self, name: str) -> Path:
        return self.folder(name).with_name(f".{name}.lock")


def _not_a_store(path: Path) -> NotAStoreError:
    found = "a directory with other things in it" if path.is_dir() else "a file"
    return NotAStoreError(
        f"{path}: not a store but {found}; name one that `setcon ingest` has made, or for a new "
        "store a path that is free"
    )


def _damaged_commit(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path}: damaged commit record ({error}); restore it, or delete {path.parent} and ingest "
        "its source again"
    )


def _described(source: Source) -> str:
    part = f" ({source.part})" if source.part else ""
    return f"{source.path}{part} of {source.size_bytes} bytes, digest {source.digest[:12]}"


def _difference(stored: RecordSettings, asked: RecordSettings) -> str:
    return ", ".join(
        f"{field}={getattr(stored, field)} (asked: {getattr(asked, field)})"
        for field in RecordSettings.__dataclass_fields__
        if getattr(stored, field) != getattr(asked, field)
    )
