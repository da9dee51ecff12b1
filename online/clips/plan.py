"""Which clips a trainer gets, in which order: a pure function of what was committed.

    epoch 0           epoch 1           ...        a store at rest: every clip, again
    epoch 0, round 0  round 1           ...        a followed store: only what has been added

A plan depends on the request and on the numbers in the cursor, and on nothing else, so a server
that was restarted makes it again from the cursor alone.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from jaxtyping import Bool, UInt32

from ingest.disk.checksum import crc32c
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig, ClipSpec, Cuts
from online.clips.cursor import Cursor, Extent
from online.clips.planned import Planned
from online.clips.request import ClipRequest, Order
from online.clips.steps import STEP_CLIPS, STEP_NAMES, Steps, done
from online.errors import ServerError

BLOCK_CLIPS = 8
"""Neighbouring clips that a shuffle keeps near each other, because they share chunks on disk."""
POOL_BLOCKS = 16
"""Blocks whose clips are mixed."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One shard of one round of one epoch."""

    start: Cursor
    """The cursor at its beginning, index 0."""
    clips: Sequence[ClipSpec]
    total: int
    """Clips of all shards."""
    full: int
    """Those of `total` that are of full length."""


def extents_now(catalog: StoreCatalog, glob: str, *, follow: bool) -> dict[str, Extent]:
    """What is committed now; a recording that may be followed further stays open at its end."""
    return done(looking(catalog, glob, follow=follow))


def looking(catalog: StoreCatalog, glob: str, *, follow: bool) -> Steps[dict[str, Extent]]:
    """The steps of `extents_now`."""
    extents = {}
    for number, name in enumerate(catalog.names(glob)):
        commit = catalog.commit(name)
        extents[name] = Extent(commit.length, commit.complete or not follow, commit.released)
        if number % STEP_NAMES == STEP_NAMES - 1:
            yield 0
    return extents


def make_plan(catalog: StoreCatalog, request: ClipRequest, *, order: Order, cursor: Cursor) -> Plan:
    """The clips of the cursor's extents beyond its base, ordered, and of these the wanted shard.

    The cursor names what to plan; its index, fingerprint, holdout and count of released clips are
    those of an earlier plan and are ignored.

    Raises ServerError: a recording is gone or shorter than its extent; IngestError: one is damaged,
    or was replaced.
    """
    return done(planning(catalog, request, order=order, cursor=cursor))


def planning(
    catalog: StoreCatalog, request: ClipRequest, *, order: Order, cursor: Cursor
) -> Steps[Plan]:
    """The steps of `make_plan`."""
    names = sorted(cursor.extents)  # the order in which a store lists them must not matter
    yield from _check_nothing_is_missing(catalog, cursor, names)
    recordings: list[_Added] = []
    count = 0
    for name in names:
        recordings.append(_Added.of(catalog, request, name, cursor))
        count += len(recordings[-1].kept)
        yield count
    kept = _joined(names, recordings)
    # one order over all shards, so that it does not depend on which of them asks
    if order == "shuffled":
        key = f"{request.seed}/{cursor.epoch}/{cursor.round}"
        ordered = yield from shuffling(count, key=key)
    else:
        ordered = np.arange(count, dtype=np.uint32)
    made_of = [catalog.commit(name).identity for name in names]
    if request.shards > 1:
        made_of.append(f"{request.shards} shards, by place in the recording")
    fingerprint = yield from _fingerprint(made_of, kept, ordered)
    start = msgspec.structs.replace(
        cursor,
        index=0,
        # a trainer's cursor may name any recordings in its base, and the server keeps the plan
        base={name: extent for name, extent in cursor.base.items() if name in cursor.extents},
        # in round 0 the trainer has just come, and nothing that was deleted before was meant for it
        released=sum(added.released for added in recordings) if cursor.round else 0,
        # over the clips of all shards: another order, cut or number of shards changes it
        fingerprint=fingerprint,
        holdout=catalog.holdout,
    )
    if request.shards > 1:
        is_ours = np.concatenate([np.empty(0, np.bool_), *(added.is_ours for added in recordings)])
        ordered = ordered[is_ours[ordered]]
    return Plan(start, kept[ordered], count, full=kept.count_of(request.clip.frames))


@dataclass(frozen=True, slots=True, eq=False)
class _Added:
    """What one recording adds to a plan."""

    kept: Cuts
    """Clips of all shards, in time order."""
    is_ours: Bool[np.ndarray, " n"]
    """Which of them the wanted shard gets."""
    released: int
    """Clips of the wanted shard that were deleted when the round began."""

    @classmethod
    def of(cls, catalog: StoreCatalog, request: ClipRequest, name: str, cursor: Cursor) -> _Added:
        extent, base = cursor.extents[name], cursor.base.get(name)
        before, added = _beyond(catalog, name, request.clip, base, extent)
        # A clip's shard follows from its place in its recording, not in the round: trainers that
        # share a growing store look at it at different times, so their rounds differ, and still
        # each clip must belong to exactly one of them. The offset by the recording's name keeps
        # recordings of a single clip from all falling to shard 0.
        first = (before + _scattered(name)) % request.shards
        is_ours = (first + np.arange(len(added))) % request.shards == request.shard
        is_kept = added.starts >= extent.released
        return cls(added[is_kept], is_ours[is_kept], int(np.sum(is_ours & ~is_kept)))


def _check_nothing_is_missing(
    catalog: StoreCatalog, cursor: Cursor, names: Sequence[str]
) -> Steps[None]:
    there = set(catalog.names())  # not all that the store has: some may have been withdrawn
    for number, name in enumerate(names):
        length = catalog.commit(name).length if name in there else 0
        if length < cursor.extents[name].length:
            raise ServerError(
                f"{catalog.store.location}: {name} has {length} frames and the trainer has seen "
                f"{cursor.extents[name].length}; the store was replaced, or the recording is not "
                "offered any more; start a new run"
            )
        if number % STEP_NAMES == STEP_NAMES - 1:
            yield 0


def has_grown(before: Extent | None, now: Extent) -> bool:
    """Whether a recording may have clips that it had not."""
    return before is None or (before.length, before.closed) != (now.length, now.closed)


def shuffling(count: int, *, key: str) -> Steps[UInt32[np.ndarray, " count"]]:
    """Shuffle blocks of neighbours, then the clips of every few blocks among themselves."""
    rng = random.Random(key)  # stable between versions, unlike numpy's streams
    blocks = [range(i, min(i + BLOCK_CLIPS, count)) for i in range(0, count, BLOCK_CLIPS)]
    rng.shuffle(blocks)
    shuffled = array("I")
    for i in range(0, len(blocks), POOL_BLOCKS):
        pool = [clip for block in blocks[i : i + POOL_BLOCKS] for clip in block]
        rng.shuffle(pool)
        shuffled.extend(pool)
        if i % (STEP_CLIPS // BLOCK_CLIPS) == 0:
            yield count
    return np.frombuffer(shuffled, np.uint32) if count else np.empty(0, np.uint32)


def _beyond(
    catalog: StoreCatalog, name: str, config: ClipConfig, base: Extent | None, extent: Extent
) -> tuple[int, Cuts]:
    """How many clips lie in `base`, and those that `extent` adds."""
    if base is not None and not has_grown(base, extent):
        return 0, Cuts(np.empty(0, np.int64), np.empty(0, np.int64))
    if base is None:
        return 0, catalog.cuts(name, config, length=extent.length, closed=extent.closed)
    return catalog.cuts_beyond(
        name,
        config,
        base_length=base.length,
        base_closed=base.closed,
        length=extent.length,
        closed=extent.closed,
    )


def _scattered(name: str) -> int:
    """A number by which names that differ in a letter fall into any shard."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _joined(names: list[str], recordings: Sequence[_Added]) -> Planned:
    """The clips of all recordings, in the order of their names."""
    none = np.empty(0, np.int64)
    counts = [len(added.kept) for added in recordings]
    return Planned(
        names,
        np.repeat(np.arange(len(names), dtype=np.uint32), counts),
        np.concatenate([none, *(added.kept.starts for added in recordings)]),
        np.concatenate([none, *(added.kept.lengths for added in recordings)]).astype(np.uint32),
    )


def _fingerprint(
    made_of: Sequence[str], clips: Planned, ordered: UInt32[np.ndarray, " n"]
) -> Steps[int]:
    """CRC-32C of a line for each recording and each clip."""
    found = crc32c("\n".join(made_of).encode())
    for first in range(0, len(ordered), STEP_CLIPS):
        some = clips[ordered[first : first + STEP_CLIPS]]
        lines = "".join(f"\n{c.recording}/{c.start}/{c.length}" for c in some)
        found = crc32c(lines.encode(), found)
        yield len(ordered)
    return found
