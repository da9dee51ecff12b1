"""Copy a store of this machine into object storage, recording by recording.

    commit record ──▶ frames, a shard at a time ──▶ the same recording there, by its one writer

What is read is checked by its checksums. Only whole shards of a recording that is not complete are
copied, and a copy that was cut off continues after its last committed shard.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from ingest.errors import (
    IngestError,
    NoSuchRecordingError,
    NotAStoreError,
    RecordingExistsError,
    StoreError,
)
from ingest.open import open_or_create_store
from ingest.store.blobs import is_address
from ingest.store.layout import listed
from ingest.store.protocols import RecordingReader, RecordingWriter, Store
from ingest.store.records import CommitRecord, Counters

PublishStatus = Literal["published", "continued", "already there", "not complete yet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of one recording: either a copy or an error."""

    name: str
    status: PublishStatus | None = None
    commit: CommitRecord | None = None
    """Of the copy."""
    frames_this_run: int = 0
    seconds: float = 0.0
    error: IngestError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishProgress:
    """How far one recording has come."""

    name: str
    frames: int
    total_frames: int


def publish_store(
    store: Store,
    location: str,
    *,
    recordings: str = "*",
    overwrite: bool = False,
    progress: Callable[[PublishProgress], None] | None = None,
) -> Iterator[Published]:
    """Copy the recordings whose name matches a glob to a store in object storage, one by one.

    It is made where there is none. A recording that fails does not stop the others. `overwrite`
    replaces recordings of the same names that are not a part of these. Raises StoreError
    where no name matches, or `location` is not in object storage.
    """
    names = store.recordings()
    chosen = [name for name in names if fnmatchcase(name, recordings)]
    if not chosen:
        raise StoreError(
            f"{store.location}: no recording matches {recordings!r}; it holds: {listed(names)}"
        )
    if not is_address(location):
        raise NotAStoreError(
            f"{location}: is not in object storage; name an address such as s3://bucket/store, or "
            "copy the folder of the store"
        )
    return _copies(store, location, chosen, overwrite, progress)


def _copies(
    store: Store,
    location: str,
    names: list[str],
    overwrite: bool,
    progress: Callable[[PublishProgress], None] | None,
) -> Iterator[Published]:
    target: Store | None = None
    for name in names:
        try:
            _check_can_be_copied(store, name)
        except IngestError as error:
            yield Published(name=name, error=error)
            continue
        target = target or open_or_create_store(location)  # none is made for nothing
        yield _published(store, target, name, overwrite, progress)


def _published(
    store: Store,
    target: Store,
    name: str,
    overwrite: bool,
    progress: Callable[[PublishProgress], None] | None,
) -> Published:
    begun = time.monotonic()
    try:
        with (
            store.reader(name) as reader,
            _writer(target, reader, name, overwrite) as writer,
        ):
            before = writer.commit
            _copy(reader, writer, progress)
            commit = writer.commit
    except IngestError as error:
        return Published(name=name, error=error)
    return Published(
        name=name,
        status=_status(before, commit),
        commit=commit,
        frames_this_run=commit.length - before.length,
        seconds=time.monotonic() - begun,
    )


def _check_can_be_copied(store: Store, name: str) -> None:
    if released := store.commit(name).released:
        raise StoreError(
            f"{store.location}: recording {name!r}: its first {released} frames were "
            "deleted (--keep), and only whole recordings are published; export what is left"
        )


def _writer(target: Store, reader: RecordingReader, name: str, overwrite: bool) -> RecordingWriter:
    commit = reader.commit

    def begin(*, overwrite: bool) -> RecordingWriter:
        return target.writer(
            name,
            source=commit.source,
            settings=commit.settings,
            height=commit.height,
            width=commit.width,
            has_masks=commit.has_masks,
            live=commit.live,
            max_chunk_length=commit.chunk_length,
            codec=commit.codec,
            overwrite=overwrite,
        )

    try:
        _check_is_part_of(reader, target, name)
        return begin(overwrite=False)  # of the same source: a copy is continued, never begun again
    except RecordingExistsError:
        if not overwrite:
            raise
    return begin(overwrite=True)


def _check_is_part_of(reader: RecordingReader, target: Store, name: str) -> None:
    """Refuse a copy that the recording does not continue: two may be made of one source."""
    try:
        copied = target.commit(name)
    except NoSuchRecordingError:
        return
    commit = reader.commit
    if not copied.source.same_content(commit.source):
        return  # the writer says how they differ
    where = f"{target.location}: recording {name!r}"
    if copied.length > commit.length:
        raise RecordingExistsError(
            f"{where}: has {copied.length} frames, more than the {commit.length} of what is to be "
            "copied; use --overwrite to replace it"
        )
    if copied.complete or not copied.length:
        return
    start, stop = max(0, copied.length - copied.chunk_length), copied.length
    with target.reader(name) as copy:
        found, own = copy.read(start, stop), reader.read(start, stop)
    if not (np.array_equal(found.pts_ns, own.pts_ns) and np.array_equal(found.images, own.images)):
        raise RecordingExistsError(
            f"{where}: its frames {start}..{stop} are not those of what is to be copied; use "
            "--overwrite to replace it"
        )


def _copy(
    reader: RecordingReader,
    writer: RecordingWriter,
    progress: Callable[[PublishProgress], None] | None,
) -> None:
    """All that there is if the recording is complete, else whole shards."""
    commit, step = reader.commit, writer.block_length
    masks = commit.has_masks

    def announce() -> None:
        if progress is not None:
            done = writer.commit.length
            progress(PublishProgress(name=reader.name, frames=done, total_frames=commit.length))

    while not writer.commit.complete:
        start = writer.commit.length
        if start + step <= commit.length:
            stop = start + step
            gaps = int(reader.gap()[:stop].sum())
            so_far = Counters(decoded=stop, stored=stop, gaps=gaps)
            writer.append(reader.read(start, stop, masks=masks), so_far)
        elif commit.complete:
            tail = reader.read(start, commit.length, masks=masks) if start < commit.length else None
            writer.finish(tail, commit.counters)
        else:
            return
        announce()


def _status(before: CommitRecord, commit: CommitRecord) -> PublishStatus:
    if before.complete:
        return "already there"
    if not commit.complete:
        return "not complete yet"
    return "continued" if before.length else "published"
