"""Which clips a trainer gets, in which order: a pure function of what was committed.

    epoch 0           epoch 1           ...        a store that stands still: every clip, again
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
from online.clips.cursor import Cursor, Extent, Order
from online.errors import ServerError
from online.queue.messages import Hello

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


def make_plan(
    catalog: StoreCatalog,
    want: Hello,
    *,
    order: Order,
    cursor: Cursor,
) -> Plan:
    """The clips of the cursor's extents beyond its base, ordered, and of these the wanted shard.

    The cursor's index, fingerprint, holdout and what it says of frames let go of are not looked at.

    Raises ServerError: a recording is gone or shorter than its extent; IngestError: one is damaged,
    or was replaced.
    """
    config = clip_config(want)
    there = set(catalog.store.recordings())
    clips: list[ClipSpec] = []
    ours: set[ClipSpec] = set()
    gone: list[ClipSpec] = []
    for name, extent in sorted(cursor.extents.items()):
        length = catalog.commit(name).length if name in there else 0
        if length < extent.length:
            raise ServerError(
                f"{catalog.store.path}: {name} has {length} frames and the trainer has seen "
                f"{extent.length}; the store was replaced, start a new run"
            )
        before, added = _beyond(catalog, name, config, cursor.base.get(name), extent)
        # by its place in its recording: trainers begin rounds at different times
        first = before + _scattered(name)
        shard = [clip for i, clip in enumerate(added, first) if i % want.shards == want.shard]
        clips += [clip for clip in added if clip.start >= extent.released]
        ours.update(clip for clip in shard if clip.start >= extent.released)
        if cursor.round:  # what had gone before a trainer came is none of its plan
            gone += [clip for clip in shard if clip.start < extent.released]
    if order == "shuffled":
        clips = shuffle(clips, key=f"{want.seed}/{cursor.epoch}/{cursor.round}")
    made_of = [catalog.commit(name).identity for name in sorted(cursor.extents)]
    if want.shards > 1:
        made_of.append(f"{want.shards} shards, by place in the recording")
    start = msgspec.structs.replace(
        cursor,
        index=0,
        # a trainer may name what it likes, and this is kept
        base={name: extent for name, extent in cursor.base.items() if name in cursor.extents},
        released=len(gone),
        released_frames=sum(clip.length - config.overlap for clip in gone),
        fingerprint=_fingerprint(made_of, clips),
        holdout=catalog.holdout,
    )
    return Plan(start, [clip for clip in clips if clip in ours], len(clips))


def has_grown(before: Extent | None, now: Extent) -> bool:
    """Whether a recording may have clips that it had not."""
    return before is None or (before.length, before.closed) != (now.length, now.closed)


def clip_config(want: Hello) -> ClipConfig:
    """How the trainer wants its clips."""
    return ClipConfig(clip_length=want.clip_length, frame_stride=want.frame_stride, hop=want.hop)


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
