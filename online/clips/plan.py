"""Which clips a trainer gets, in which order: a pure function of what was committed.

    epoch 0           epoch 1           ...        a store at rest: every clip, again
    epoch 0, round 0  round 1           ...        a followed store: only what has been added

A plan depends on the request and on the numbers in the cursor, and on nothing else, so a server
that was restarted makes it again from the cursor alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ingest.disk.checksum import crc32c
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig, ClipSpec
from online.clips.cursor import Cursor, Extent
from online.clips.request import ClipRequest, Order
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


def extents_now(catalog: StoreCatalog, glob: str, *, follow: bool) -> dict[str, Extent]:
    """What is committed now; a recording that may be followed further stays open at its end."""
    commits = {name: catalog.commit(name) for name in catalog.names(glob)}
    return {
        name: Extent(commit.length, commit.complete or not follow, commit.released)
        for name, commit in commits.items()
    }


def make_plan(catalog: StoreCatalog, request: ClipRequest, *, order: Order, cursor: Cursor) -> Plan:
    """The clips of the cursor's extents beyond its base, ordered, and of these the wanted shard.

    The cursor names what to plan; its index, fingerprint, holdout and count of released clips are
    those of an earlier plan and are ignored.

    Raises ServerError: a recording is gone or shorter than its extent; IngestError: one is damaged,
    or was replaced.
    """
    names = sorted(cursor.extents)  # the order in which a store lists them must not matter
    _check_nothing_is_missing(catalog, cursor)
    recordings = [_Added.of(catalog, request, name, cursor) for name in names]
    clips = [clip for added in recordings for clip in added.kept]
    # one order over all shards, so that it does not depend on which of them asks
    if order == "shuffled":
        clips = shuffle(clips, key=f"{request.seed}/{cursor.epoch}/{cursor.round}")
    ours = {clip for added in recordings for clip in added.shard}
    made_of = [catalog.commit(name).identity for name in names]
    if request.shards > 1:
        made_of.append(f"{request.shards} shards, by place in the recording")
    start = msgspec.structs.replace(
        cursor,
        index=0,
        # a trainer's cursor may name any recordings in its base, and the server keeps the plan
        base={name: extent for name, extent in cursor.base.items() if name in cursor.extents},
        # in round 0 the trainer has just come, and nothing that was deleted before was meant for it
        released=sum(added.released for added in recordings) if cursor.round else 0,
        # over the clips of all shards: another order, cut or number of shards changes it
        fingerprint=_fingerprint(made_of, clips),
        holdout=catalog.holdout,
    )
    return Plan(start, [clip for clip in clips if clip in ours], len(clips))


@dataclass(frozen=True, slots=True, eq=False)
class _Added:
    """What one recording adds to a plan."""

    kept: list[ClipSpec]
    """Clips of all shards, in time order."""
    shard: list[ClipSpec]
    """The clips among them that the wanted shard gets."""
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
        first = before + _scattered(name)
        mine = [clip for i, clip in enumerate(added, first) if i % request.shards == request.shard]
        shard = [clip for clip in mine if clip.start >= extent.released]
        kept = [clip for clip in added if clip.start >= extent.released]
        return cls(kept, shard, len(mine) - len(shard))


def _check_nothing_is_missing(catalog: StoreCatalog, cursor: Cursor) -> None:
    there = set(catalog.store.recordings())
    for name, extent in sorted(cursor.extents.items()):
        length = catalog.commit(name).length if name in there else 0
        if length < extent.length:
            raise ServerError(
                f"{catalog.store.location}: {name} has {length} frames and the trainer has seen "
                f"{extent.length}; the store was replaced, start a new run"
            )


def has_grown(before: Extent | None, now: Extent) -> bool:
    """Whether a recording may have clips that it had not."""
    return before is None or (before.length, before.closed) != (now.length, now.closed)


def shuffle(clips: Sequence[ClipSpec], *, key: str) -> list[ClipSpec]:
    """Shuffle blocks of neighbours, then the clips of every few blocks among themselves."""
    rng = random.Random(key)  # stable between versions, unlike numpy's streams
    blocks = [clips[i : i + BLOCK_CLIPS] for i in range(0, len(clips), BLOCK_CLIPS)]
    rng.shuffle(blocks)
    shuffled: list[ClipSpec] = []
    for i in range(0, len(blocks), POOL_BLOCKS):
        pool = [clip for block in blocks[i : i + POOL_BLOCKS] for clip in block]
        rng.shuffle(pool)
        shuffled += pool
    return shuffled


def _beyond(
    catalog: StoreCatalog, name: str, config: ClipConfig, base: Extent | None, extent: Extent
) -> tuple[int, list[ClipSpec]]:
    """How many clips lie in `base`, and those that `extent` adds."""
    if base is not None and not has_grown(base, extent):
        return 0, []
    if base is None:
        return 0, catalog.clips(name, config, length=extent.length, closed=extent.closed)
    return catalog.clips_beyond(
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


def _fingerprint(made_of: Sequence[str], clips: Sequence[ClipSpec]) -> int:
    cut = [f"{c.recording}/{c.start}/{c.length}" for c in clips]
    return crc32c("\n".join([*made_of, *cut]).encode())
