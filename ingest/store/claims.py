"""Who may write a recording where nothing can be locked: its commit record names the writer.

    first     GET record ── none: PUT If-None-Match: * one of no frames, before anything else
                         └─ incomplete: PUT If-Match with my name in it; I write it from now on
    a blob    PUT If-None-Match: *, or If-Match the version that I put before
                └─ 412: which version is there? is the record still mine? PUT If-Match that version
    commit    PUT If-Match the version that I put before ── 412: another has claimed it

A writer that was killed, or that the network cut off, keeps nothing: the next one claims the record
at once, and whatever the first one still sends is refused. The record of a complete recording names
no writer, so that its bytes do not depend on who wrote it.
"""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from ingest.errors import RecordingLockedError, StoreError

if TYPE_CHECKING:
    from ingest.store.blobs import Blobs
    from ingest.store.objects import ObjectBlobs, Version

_MOST_ATTEMPTS = 100
"""To claim a record that others claim at the same time: one of them succeeds each time."""


class Writer(msgspec.Struct, frozen=True):
    """A process that writes a recording."""

    host: str
    process: int
    id: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class _Named(msgspec.Struct, frozen=True):
    """What a claim needs of a commit record."""

    complete: bool = False
    writer: Writer | None = None


def writer_of(record: bytes) -> Writer | None:
    """Who writes the recording of a commit record; None if nobody does, or it is damaged."""
    return _named(record).writer


class Claim:
    """A Lease on a folder of objects, which ends when another writer claims it."""

    def __init__(self, blobs: ObjectBlobs, folder: str, record: str, *, what: str) -> None:
        self._all = blobs
        self._folder = folder
        self._record = record
        self._what = what
        self._me = Writer(socket.gethostname(), os.getpid(), uuid.uuid4().hex)
        self._claimed: bytes | None = None
        """The record, without my name, where it bears that now."""
        self._version = self._claim()
        self._versions: dict[str, Version] = {}
        """Of the blobs that were put under this claim."""
        self.blobs: Blobs = blobs.within(folder).claimed_by(self)

    def commit(self, data: bytes, *, complete: bool) -> None:
        """Replace the record; RecordingLockedError where another writer has claimed it."""
        body = data if complete else self._with_my_name(data)
        version = self._put(body)
        if version is None:
            raise self._locked()
        self._version, self._claimed = version, None if complete else data

    def put(self, blobs: ObjectBlobs, name: str, data: bytes) -> None:
        """Put a blob of the folder, unless another writer has claimed it.

        Which version is there is asked before whose the record is: a writer that claims it in
        between puts another version, and this one is refused.
        """
        key = f"{blobs.location}/{name}"
        version = self._versions.get(key)
        for _ in range(_MOST_ATTEMPTS):
            made = blobs.put_if(name, data, version)
            if made is not None:
                self._versions[key] = made
                return
            version = blobs.version(name)
            self.check()
        raise self._locked()

    def check(self) -> None:
        """Raise RecordingLockedError where another writer has claimed it."""
        if self._all.version(self._record) != self._version:
            raise self._locked()

    def clear(self) -> None:
        """Delete what is in the folder, while the record keeps others off."""
        self.check()
        self._all.remove_folder(self._folder)
        self._versions.clear()

    def remove(self) -> None:
        """Delete all that the record speaks of, then the record."""
        self.clear()
        if self._version is not None:
            self._all.delete(self._record)
            self._version = self._claimed = None

    def release(self) -> None:
        """Take my name out of the record, if it is still there."""
        data, self._claimed = self._claimed, None
        if data is not None:
            with suppress(StoreError):  # the name there keeps nobody off
                self._all.put_if(self._record, data, self._version)

    def _claim(self) -> Version | None:
        for _ in range(_MOST_ATTEMPTS):
            found = self._all.look(self._record)
            if found is None:
                return None
            if _named(found.data).complete:
                return found.version
            data = _without_name(found.data)
            version = self._all.put_if(
                self._record, self._with_my_name(data), found.version, writer=str(self._me)
            )
            if version is not None:
                self._claimed = data
                return version
        raise self._locked()

    def _put(self, body: bytes) -> Version | None:
        version = self._all.put_if(self._record, body, self._version, writer=str(self._me))
        if version is None:
            # where its answer was lost, a PUT is sent again and finds its own work
            found = self._all.look(self._record)
            if found is not None and found.data == body:
                return found.version
        return version

    def _with_my_name(self, data: bytes) -> bytes:
        return _encoded(_decoded(data) | {"writer": msgspec.to_builtins(self._me)})

    def _locked(self) -> RecordingLockedError:
        self._claimed = None
        found = self._all.look(self._record)
        if found is None:
            return RecordingLockedError(
                f"{self._what}: another process has deleted it meanwhile; run the same command "
                "again"
            )
        named = _named(found.data)
        by = named.writer or found.writer or "another process"
        if named.complete or named.writer is None:
            return RecordingLockedError(
                f"{self._what}: {by} has written it meanwhile; run the same command again"
            )
        return RecordingLockedError(f"{self._what}: {by} is writing it; wait for that, or stop it")


def _named(record: bytes) -> _Named:
    try:
        return msgspec.json.decode(record, type=_Named)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _Named(complete=True)  # whoever reads it all will say that it is damaged


def _decoded(record: bytes) -> dict[str, Any]:
    return msgspec.json.decode(record, type=dict[str, Any])


def _encoded(record: dict[str, Any]) -> bytes:
    return msgspec.json.encode(record) + b"\n"


def _without_name(record: bytes) -> bytes:
    return _encoded({key: value for key, value in _decoded(record).items() if key != "writer"})
