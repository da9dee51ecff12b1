"""Read everything that a store claims to hold, and compare it with its own checksums and counts.

commit record ──▶ every chunk of every field ──▶ times and gaps ──▶ counters
  damaged: reported  damaged: counted, and on       against the commit record
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ingest.errors import StoreError
from ingest.store.cache import ChunkCache
from ingest.store.layout import listed
from ingest.store.protocols import RecordingReader, Store
from ingest.store.records import CommitRecord
from ingest.video.paths import path_text

_HOPELESS = 1000
"""Damaged chunks of times in a row after which to give up: a wrong length may be endless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found in one recording."""

    name: str
    complete: bool = False
    frames: int = 0
    """Committed, including those that were deleted since."""
    read_bytes: int = 0
    """Intact, after decompression."""
    seconds: float = 0.0
    damaged_chunks: int = 0
    faults: tuple[str, ...] = ()
    """One line each: the first damage, and what does not agree with the commit record."""
    leftovers: tuple[str, ...] = ()
    """Files that a killed writer left half written; not a fault, for nothing in them counts."""

    @property
    def ok(self) -> bool:
        """Whether everything is as it was committed."""
        return not self.faults


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyProgress:
    """How far one recording has come."""

    name: str
    read_bytes: int
    total_bytes: int
    seconds: float


def verify_store(
    store: Store,
    *,
    recordings: str = "*",
    progress: Callable[[VerifyProgress], None] | None = None,
) -> Iterator[Verified]:
    """Check the recordings whose name matches a glob, one by one; damage does not end it early,
    but where a thousand chunks of times in a row are not to be read.

    A recording that is being written is checked up to the length it had when its turn came.
    `progress` is called after every chunk. Raises StoreError where no name matches.
    """
    names = store.recordings()
    chosen = [name for name in names if fnmatchcase(name, recordings)]
    if not chosen:
        raise StoreError(
            f"{store.location}: no recording matches {recordings!r}; it holds: {listed(names)}"
        )
    return (_verify(store, name, progress) for name in chosen)


def _verify(store: Store, name: str, progress: Callable[[VerifyProgress], None] | None) -> Verified:
    begun = time.monotonic()
    try:
        with store.reader(name, cache=ChunkCache(0)) as reader:
            commit = reader.commit
            read = _read_all(reader, begun, progress)
        leftovers = store.leftovers(name)
    except StoreError as error:  # the commit record itself
        return Verified(name=name, faults=(str(error),))
    return Verified(
        name=name,
        complete=commit.complete,
        frames=commit.length,
        read_bytes=read.bytes,
        seconds=time.monotonic() - begun,
        damaged_chunks=read.damaged_chunks,
        faults=(*read.first_damage, *_disagreements(commit, read.index)),
        leftovers=tuple(path_text(Path(Path(left).name)) for left in leftovers),
    )


@dataclass(slots=True)
class _Read:
    """What could be read of a recording."""

    bytes: int = 0
    index: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    """Values per frame, of the fields whose chunks are all intact."""
    damaged_chunks: int = 0
    first_damage: tuple[str, ...] = ()


def _read_all(
    reader: RecordingReader, begun: float, progress: Callable[[VerifyProgress], None] | None
) -> _Read:
    read, damaged, in_a_row = _Read(), set(), 0
    for chunk in reader.chunks():
        if chunk.values is None:
            read.damaged_chunks += 1
            read.first_damage = read.first_damage or (str(chunk.damage),)
            damaged.add(chunk.field)
            in_a_row = in_a_row + 1 if chunk.field == "pts_ns" else 0
            if in_a_row == _HOPELESS:
                read.first_damage += (
                    f"{_HOPELESS} chunks of times in a row; the rest was not read",
                )
                break
            continue
        in_a_row = 0
        read.bytes += chunk.values.nbytes
        if chunk.field in ("pts_ns", "gap"):
            read.index[chunk.field].append(chunk.values)
        if progress is not None:
            progress(
                VerifyProgress(
                    name=reader.name,
                    read_bytes=read.bytes,
                    total_bytes=_total_bytes(reader.commit),
                    seconds=time.monotonic() - begun,
                )
            )
    for name in damaged:
        read.index.pop(name, None)
    return read


def _total_bytes(commit: CommitRecord) -> int:
    masks = commit.raw_bytes // 3 if commit.has_masks else 0
    times = 8 + 1 + (8 if commit.live else 0)
    return commit.raw_bytes + masks + commit.length * times


def _disagreements(commit: CommitRecord, index: Mapping[str, list[np.ndarray]]) -> Iterator[str]:
    """How the commit record contradicts itself, or what is stored."""
    counters = commit.counters
    if counters.stored != commit.length:
        yield f"{commit.length} frames are committed, the counters say {counters.stored} stored"
    accounted = counters.stored + counters.dropped + counters.duplicate + counters.resampled
    if counters.decoded != accounted:
        yield (
            f"{counters.decoded} frames decoded, but stored + dropped + duplicate + resampled "
            f"make {accounted}"
        )
    if "gap" in index and (gaps := int(np.concatenate(index["gap"]).sum())) != counters.gaps:
        yield f"{gaps} gaps are stored, the counters say {counters.gaps}"
    if commit.breaks is not None and "gap" in index:
        found = np.flatnonzero(np.concatenate(index["gap"])).tolist()
        if found != list(commit.breaks):
            said = list(commit.breaks)
            yield f"gaps are stored at {found[:9]}, the commit record says {said[:9]}"
    if "pts_ns" in index:
        yield from _wrong_times(commit, np.concatenate(index["pts_ns"]))


def _wrong_times(commit: CommitRecord, pts_ns: Int64[np.ndarray, " n"]) -> Iterator[str]:
    backwards = np.flatnonzero(np.diff(pts_ns) <= 0)
    if len(backwards):
        yield f"times do not grow after frame {backwards[0]}, and {len(backwards)} times in all"
    ends = (int(pts_ns[0]), int(pts_ns[-1]))
    if ends != (commit.first_pts_ns, commit.last_pts_ns):
        yield (
            f"frames run from {ends[0]} to {ends[1]} ns, the commit record says from "
            f"{commit.first_pts_ns} to {commit.last_pts_ns} ns"
        )
