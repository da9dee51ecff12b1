"""What a place for the bytes of a store is able to do: named blobs, and leases on their folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, runtime_checkable

from ingest.disk.durable import PARTIAL
from ingest.disk.inside import Buffer

MAX_BLOB_BYTES = 2 << 30
"""Of any blob: the largest chunk there is."""

Put = Callable[[str, bytes], None]
"""Writes one blob by its name."""


class Blob(NamedTuple):
    """One entry of a listing."""

    name: str
    size_bytes: int

    @property
    def is_leftover(self) -> bool:
        """Whether a killed writer left it half written: nothing in it counts."""
        return self.name.endswith(PARTIAL)


class Tail(NamedTuple):
    """The end of a blob."""

    data: bytes
    size_bytes: int
    """Of the whole blob."""
    version: str
    """Which blob of that name it is, where several places may have put one."""


@runtime_checkable
class Lease(Protocol):
    """The exclusive right to write a folder and its record; ends with the process that holds it."""

    @property
    def blobs(self) -> Blobs:
        """The folder, to be written."""
        ...

    def commit(self, data: bytes, *, complete: bool) -> None:
        """Put the record in one step, safe from a power cut if it is to be the last.

        Raises RecordingLockedError where the right was lost.
        """
        ...

    def clear(self) -> None:
        """Delete what is in the folder."""
        ...

    def remove(self) -> None:
        """Delete the folder and the record; a part of them never passes for the whole."""
        ...

    def release(self) -> None:
        """Let others write; releasing twice is allowed."""
        ...


@runtime_checkable
class Blobs(Protocol):
    """Named bytes under one root. Several threads may use it at once."""

    @property
    def location(self) -> str:
        """The root, as messages show it and as it is opened again."""
        ...

    @property
    def durable(self) -> bool:
        """Whether a blob is safe from a power cut as soon as it is put, or only after `sync`."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether every request takes its time and costs money, and nothing can be locked."""
        ...

    def within(self, folder: str) -> Blobs:
        """The blobs of one folder, with that as the root."""
        ...

    def found(self) -> str | None:
        """What is at the root, in a few words; None where a new store can be made."""
        ...

    def get(self, name: str, *, most_bytes: int = MAX_BLOB_BYTES) -> bytes:
        """All bytes of a blob.

        Raises FileNotFoundError where there is none, OSError where it has more than `most_bytes`.
        """
        ...

    def view(self, name: str, *, most_bytes: int = MAX_BLOB_BYTES) -> Buffer:
        """The same, but not copied where that can be; raises as `get`."""
        ...

    def stamp(self, name: str) -> tuple[int, ...] | None:
        """Numbers that change when a blob is replaced; None where that cannot be told this way."""
        ...

    def tail(self, name: str, count: int) -> Tail:
        """The last `count` bytes of a blob, or all that it has; raises as `get`."""
        ...

    def get_range(
        self, name: str, start: int, stop: int, tail: Tail, *, fresh: bool = False
    ) -> bytes:
        """Bytes start..stop of the blob that `tail` is of, or as many as there are.

        Raises as `get`. With `fresh` they come from where the blob is, not from what is kept here.
        """
        ...

    def bring(self, name: str, start: int, stop: int, tail: Tail) -> None:
        """Bring those bytes here, if they are not, for `get_range`; several threads may do so."""
        ...

    def put(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Make or replace a blob in one step; safe from a power cut if `self.durable or durable`.

        Raises OSError, after which what was there before stays; also where its folder is gone, in
        a place where folders exist by themselves.
        """
        ...

    def put_together(self, folder: str) -> AbstractContextManager[Put]:
        """A function that puts blobs of one folder, which are there when the context is left.

        Several threads may call it at once. After an error the earlier blobs stay.
        """
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a blob."""
        ...

    def delete(self, name: str) -> bool:
        """Delete a blob; returns whether there was one."""
        ...

    def entries(self, folder: str = "") -> Iterator[Blob]:
        """All blobs whose names begin with `folder`, leftovers too, in no order."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly within one, sorted, without hidden ones (`.name`)."""
        ...

    def make_folder(self, folder: str) -> None:
        """Make a folder to put blobs in, where folders exist by themselves."""
        ...

    def remove_folder(self, folder: str) -> None:
        """Delete all blobs of a folder; a part of it never passes for the whole."""
        ...

    def lease(self, folder: str, record: str, *, what: str) -> Lease:
        """Keep other writers off a folder and the record that speaks of it.

        Raises RecordingLockedError, which names `what`, if one is there.
        """
        ...

    def is_leased(self, folder: str, record: str) -> bool:
        """Whether a process holds that lease, as far as this place can tell."""
        ...

    def sync(self) -> None:
        """Make all that was put so far safe from a power cut."""
        ...
