"""Which clips a trainer gets, in which order: a pure function of what was committed.

    epoch 0           epoch 1           ...        a store at rest: every clip, again
    epoch 0, round 0  round 1           ...        a followed store: only what has been added

A plan depends on the request and on the numbers in the cursor, and on nothing else, so a server
that was restarted makes it again from the cursor alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
import numpy as np
from jaxtyping import UInt32

from ingest.disk.checksum import crc32c
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig, Cuts
from online.clips.cursor import Cursor, Extent
from online.clips.planned import Cut, Planned, Shard
from online.clips.request import ClipRequest, Order
from online.clips.shuffle import MAX_PACKED, VastShuffle, shuffling
from online.clips.steps import STEP_CLIPS, STEP_NAMES, Steps, done
from online.errors import ServerError


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One shard of one round of one epoch."""

    start: Cursor
    """The cursor at its beginning, index 0."""
    clips: Planned
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
    names = yield from catalog.naming(glob)
    for number, name in enumerate(names):
        extents[name] = catalog.extent(name, follow=follow)
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
    there = set((yield from catalog.naming()))  # some that the store has may have been withdrawn
    recordings: list[_Added] = []
    count = nbytes = 0
    for name in names:
        recordings.append(_Added.of(catalog, request, name, cursor, is_there=name in there))
        count += len(recordings[-1].kept)
        nbytes += recordings[-1].kept.nbytes
        yield nbytes + _order_bytes(order, count)
    cut = Cut(names, [added.kept for added in recordings], request.clip)
    shard = Shard(
        [len(added.kept) for added in recordings],
        [added.begins for added in recordings],
        request.shards,
    )
    made_of = [catalog.identity(name) for name in names]
    if request.shards > 1:
        made_of.append(f"{request.shards} shards, by place in the recording")
    ordering = _Ordering(cut, shard, order, f"{request.seed}/{cursor.epoch}/{cursor.round}")
    clips, fingerprint = yield from ordering.planning("\n".join(made_of).encode())
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
    return Plan(start, clips, count, full=cut.full)


@dataclass(frozen=True, slots=True, eq=False)
class _Added:
    """What one recording adds to a plan."""

    kept: Cuts
    """Clips of all shards, in time order."""
    begins: int
    """The wanted shard gets this one of them, and every one that is a number of shards later."""
    released: int
    """Clips of the wanted shard that were deleted when the round began."""

    @classmethod
    def of(
        cls,
        catalog: StoreCatalog,
        request: ClipRequest,
        name: str,
        cursor: Cursor,
        *,
        is_there: bool,
    ) -> _Added:
        extent, base = cursor.extents[name], cursor.base.get(name)
        if not is_there:
            raise _missing(catalog, name, 0, extent)
        before, added = _beyond(catalog, name, request.clip, base, extent)
        if (length := catalog.extent(name, follow=False).length) < extent.length:
            raise _missing(catalog, name, length, extent)
        # A clip's shard follows from its place in its recording, not in the round: trainers that
        # share a growing store look at it at different times, so their rounds differ, and still
        # each clip must belong to exactly one of them. The offset by the recording's name keeps
        # recordings of a single clip from all falling to shard 0.
        begins = (request.shard - before - _scattered(name)) % request.shards
        gone = added.beginning_before(extent.released)
        ours_gone = -(-max(0, gone - begins) // request.shards)
        return cls(added.after(gone), (begins - gone) % request.shards, ours_gone)


@dataclass(frozen=True, slots=True, eq=False)
class _Ordering:
    """From the clips of all shards to those of one, in order."""

    cut: Cut
    shard: Shard
    order: Order
    key: str
    """Decides a shuffle: one order over all shards, or, of very many clips, of each shard's own."""

    def planning(self, made_of: bytes) -> Steps[tuple[Planned, int]]:
        """The clips of the shard; and the fingerprint of all, that of the recordings included."""
        count = len(self.cut)
        if count > MAX_PACKED:
            numbers = self.shard
            is_shuffled = self.order == "shuffled"
            ordered = VastShuffle(numbers, key=self.key) if is_shuffled else numbers
            how = f"\n{self.order}/{self.key if is_shuffled else ''}\n".encode()
            return Planned(self.cut, ordered), crc32c(self.cut.fingerprint, crc32c(made_of + how))
        if self.order == "shuffled":
            packed = yield from shuffling(count, key=self.key)
            fingerprint = yield from _fingerprint(made_of, self.cut, packed)
            return Planned(self.cut, packed[self.shard.has(packed)]), fingerprint
        in_time = np.arange(count, dtype=np.uint32)
        fingerprint = yield from _fingerprint(made_of, self.cut, in_time)
        return Planned(self.cut, self.shard), fingerprint


def _order_bytes(order: Order, count: int) -> int:
    return 4 * count if order == "shuffled" and count <= MAX_PACKED else 0


def _missing(catalog: StoreCatalog, name: str, length: int, extent: Extent) -> ServerError:
    return ServerError(
        f"{catalog.store.location}: {name} has {length} frames and the trainer has seen "
        f"{extent.length}; the store was replaced, or the recording is not offered any more; "
        "start a new run"
    )


def has_grown(before: Extent | None, now: Extent) -> bool:
    """Whether a recording may have clips that it had not."""
    return before is None or (before.length, before.closed) != (now.length, now.closed)


def _beyond(
    catalog: StoreCatalog, name: str, config: ClipConfig, base: Extent | None, extent: Extent
) -> tuple[int, Cuts]:
    """How many clips lie in `base`, and those that `extent` adds."""
    if base is not None and not has_grown(base, extent):
        return 0, Cuts(np.empty(0, np.int64), np.empty(0, np.int64), config)
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


def _fingerprint(made_of: bytes, cut: Cut, ordered: UInt32[np.ndarray, " n"]) -> Steps[int]:
    """CRC-32C of a line for each recording and each clip."""
    found = crc32c(made_of)
    for first in range(0, len(ordered), STEP_CLIPS):
        some = cut.specs(ordered[first : first + STEP_CLIPS])
        lines = "".join(f"\n{c.recording}/{c.start}/{c.length}" for c in some)
        found = crc32c(lines.encode(), found)
        yield 4 * len(ordered)
    return found
