"""What all stores have in common: the store's mark, names and commit records.

store.json                       the mark: format and version
recordings/NAME/commit.json      the truth about one recording
recordings/NAME/...              its chunks, as `zarr_files` or `h5_files` name them
recordings/.NAME.lock            there while a process writes the recording

Version 2 is for object storage, where every request costs: all records are listed at once, and
chunks lie together in shards.

commits/NAME.json                the truth about one recording, and who writes it
recordings/NAME/...              its shards
"""

import re
from pathlib import Path
from typing import Literal

import msgspec

from ingest.disk.durable import clear_write_errors
from ingest.errors import NoSuchRecordingError, NotAStoreError, RecordingExistsError, StoreError
from ingest.store.blobs import Blobs, Lease, LocalBlobs
from ingest.store.records import CommitRecord, RecordSettings, Source, StoreFormat

VERSION = 1
SHARDED_VERSION = 2
"""Version of a store in object storage."""
RELEASED_VERSION = 2
"""Version of a commit record some of whose frames were deleted."""
SHOWN_NAMES = 8
"""Recordings that a message names."""
_MARK = "store.json"
_RECORDINGS = "recordings"
_COMMIT = "commit.json"
_COMMITS, _JSON = "commits", ".json"
_MAX_MARK_BYTES, _MAX_COMMIT_BYTES = 4 << 10, 1 << 20
_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What reading garbage instead of JSON raises."""
_NAME = re.compile(r"[^\W_][\w.+ ()@=-]{0,199}")


def holds_store(blobs: Blobs) -> bool:
    """Whether a place is marked as a store, readable or not."""
    return blobs.exists(_MARK)


def is_store(folder: Path) -> bool:
    """Whether a folder of this machine is marked as a store, readable or not."""
    return holds_store(LocalBlobs(folder))


class _StoreMark(msgspec.Struct, frozen=True):
    """What `store.json` says."""

    what: Literal["setcon store"]
    format: StoreFormat
    version: int


class StoreLayout:
    """Where everything is in a store, and the reading and writing of commit records."""

    def __init__(self, blobs: Blobs, store_format: StoreFormat, version: int = VERSION) -> None:
        self.blobs = blobs
        self.format: StoreFormat = store_format
        self.is_sharded = version == SHARDED_VERSION

    @classmethod
    def create(cls, blobs: Blobs, store_format: StoreFormat) -> "StoreLayout":
        """Mark a place where there is nothing as a store."""
        if found := blobs.found():
            raise _not_a_store(blobs, found)
        if blobs.is_remote and store_format != "zarr":
            raise NotAStoreError(
                f"{blobs.location}: object storage holds stores of zarr, not {store_format}; use "
                "--format zarr"
            )
        version = SHARDED_VERSION if blobs.is_remote else VERSION
        mark = _StoreMark("setcon store", store_format, version)
        with clear_write_errors(blobs.location):
            blobs.make_folder(_RECORDINGS)
            blobs.put(_MARK, msgspec.json.encode(mark), durable=True)
        return cls(blobs, store_format, version)

    @classmethod
    def open(cls, blobs: Blobs) -> "StoreLayout":
        """Find an existing store; NotAStoreError for anything else."""
        try:
            mark = msgspec.json.decode(
                blobs.get(_MARK, most_bytes=_MAX_MARK_BYTES), type=_StoreMark
            )
        except (OSError, *_UNREADABLE) as error:
            if found := blobs.found():
                raise _not_a_store(blobs, found) from error
            raise NotAStoreError(
                f"{blobs.location}: no such store; make one with "
                f"`setcon ingest SOURCE {blobs.location}`"
            ) from error
        if mark.version not in (VERSION, SHARDED_VERSION):
            raise NotAStoreError(
                f"{blobs.location}: store of version {mark.version}, this program reads up to "
                f"{SHARDED_VERSION}; use the program that wrote it, or ingest again"
            )
        return cls(blobs, mark.format, mark.version)

    @property
    def all_recordings(self) -> Blobs:
        """The blobs of all recordings together."""
        return self.blobs.within(_RECORDINGS)

    def folder(self, name: str) -> str:
        """Folder of one recording; StoreError for a name that cannot be a folder."""
        if not _NAME.fullmatch(name):
            raise StoreError(
                f"{self.blobs.location}: {name!r} cannot name a recording; use up to 200 letters, "
                "digits, spaces and . _ + - ( ) @ =, beginning with a letter or digit"
            )
        return f"{_RECORDINGS}/{name}"

    def files(self, name: str) -> Blobs:
        """The blobs of one recording."""
        return self.blobs.within(self.folder(name))

    def describe(self, name: str) -> str:
        """How messages call a recording."""
        return f"{self.blobs.location}: recording {name!r}"

    def recordings(self) -> list[str]:
        """Names of all recordings that have a commit record, sorted."""
        if self.is_sharded:
            names = (blob.name.partition("/")[2] for blob in self.blobs.entries(_COMMITS))
            return sorted(name[: -len(_JSON)] for name in names if name.endswith(_JSON))
        return [name for name in self._folders() if self._has_commit(name)]

    def uncommitted(self) -> list[str]:
        """Names of folders without a commit record that no process is writing, sorted."""
        if self.is_sharded:
            return sorted({*self._folders()} - {*self.recordings()})
        names = [name for name in self._folders() if not self._has_commit(name)]
        return [name for name in names if not self.is_being_written(name)]

    def commit(self, name: str) -> CommitRecord:
        """Read a commit record from disk."""
        return self.decode_commit(name, self.read_commit(name))

    def read_commit(self, name: str) -> bytes:
        """A commit record as it is on disk: equal bytes are an equal record."""
        try:
            return self.blobs.get(self._commit_name(name), most_bytes=_MAX_COMMIT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            names = listed(self.recordings())
            raise NoSuchRecordingError(
                f"{self.blobs.location}: no recording {name!r}; it holds: {names}"
            ) from None
        except OSError as error:
            raise self._damaged_commit(name, error) from error

    def commit_stamp(self, name: str) -> tuple[int, ...] | None:
        """What changes whenever `read_commit` gives something else; None where nothing tells."""
        return self.blobs.stamp(self._commit_name(name))

    def decode_commit(self, name: str, data: bytes) -> CommitRecord:
        """The record that `read_commit` gave the bytes of."""
        try:
            commit = msgspec.json.decode(data, type=CommitRecord)
        except _UNREADABLE as error:
            raise self._damaged_commit(name, error) from error
        if commit.version not in (VERSION, RELEASED_VERSION):
            raise StoreError(
                f"{self._commit_path(name)}: version {commit.version}, this program reads up to "
                f"{RELEASED_VERSION}; use the program that wrote it"
            )
        return commit

    def write_commit(self, commit: CommitRecord, lease: Lease) -> None:
        """Make `commit` the truth; everything it describes must be on disk."""
        lease.commit(msgspec.json.encode(commit) + b"\n", complete=commit.complete)

    def lock(self, name: str) -> Lease:
        """Keep every other writer off a recording."""
        where = self.describe(name)
        if self.is_sharded != self.blobs.is_remote:
            origin = "object storage" if self.is_sharded else "a folder"
            raise StoreError(
                f"{self.blobs.location}: is a copy of a store from {origin}, which can be read, "
                "but not written here; write to the original"
            )
        with clear_write_errors(where):
            return self.blobs.lease(self.folder(name), self._commit_name(name), what=where)

    def is_being_written(self, name: str) -> bool:
        """Whether a process is writing a recording, as far as its place can tell."""
        return self.blobs.is_leased(self.folder(name), self._commit_name(name))

    def leftovers(self, name: str) -> list[str]:
        """Files that a killed writer left half written; a writer at work has such files too."""
        if self.is_sharded:
            return []  # an object is whole or absent
        files = self.files(name)
        found = sorted(blob.name for blob in files.entries() if blob.is_leftover)
        if self.is_being_written(name):
            return []
        return [left for left in found if files.exists(left)]

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

    def remove(self, name: str, lease: Lease) -> None:
        """Delete a recording; a part of it never passes for the whole."""
        with clear_write_errors(self.describe(name)):
            if self.blobs.is_remote:  # its blobs go one by one, before the record
                self._write_emptied(name, lease)
            lease.remove()

    def size_bytes(self, name: str) -> int:
        """Bytes of all files of a recording."""
        return sum(blob.size_bytes for blob in self.files(name).entries())

    def _write_emptied(self, name: str, lease: Lease) -> None:
        """Make one without frames of a record that can be read."""
        try:
            old = self.commit(name)
        except StoreError:
            return
        if old.length or old.complete:
            new = CommitRecord(
                durable=old.durable,
                live=old.live,
                height=old.height,
                width=old.width,
                has_masks=old.has_masks,
                chunk_length=old.chunk_length,
                codec=old.codec,
                source=old.source,
                settings=old.settings,
            )
            self.write_commit(new, lease)

    def _folders(self) -> list[str]:
        """Those that can be recordings: others may have put anything there."""
        return [name for name in self.blobs.folders(_RECORDINGS) if _NAME.fullmatch(name)]

    def _has_commit(self, name: str) -> bool:
        return self.blobs.exists(f"{_RECORDINGS}/{name}/{_COMMIT}")

    def _commit_name(self, name: str) -> str:
        folder = self.folder(name)  # refuses what cannot be a name
        return f"{_COMMITS}/{name}{_JSON}" if self.is_sharded else f"{folder}/{_COMMIT}"

    def _commit_path(self, name: str) -> str:
        return f"{self.blobs.location}/{self._commit_name(name)}"

    def _damaged_commit(self, name: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self._commit_path(name)}: damaged commit record ({error}); restore it, or delete "
            f"{self.blobs.location}/{self.folder(name)} and ingest its source again"
        )


def listed(names: list[str]) -> str:
    """Some names in words, for messages: a store may hold any number."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return (", ".join(names[:SHOWN_NAMES]) or "none") + more


def _not_a_store(blobs: Blobs, found: str) -> NotAStoreError:
    return NotAStoreError(
        f"{blobs.location}: not a store but {found}; name one that `setcon ingest` has made, or "
        "for a new store a path that is free"
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
