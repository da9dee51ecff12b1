"""A place in a server's plan, as messages and checkpoints keep it."""

from __future__ import annotations

from msgspec import Struct

from online.clips.limits import Checksum, Count, Name, Share


class Extent(Struct, frozen=True, array_like=True):
    """How much of a recording an epoch covers."""

    length: Count
    closed: bool
    """Whether the short clip at the end belongs to it."""
    released: Count = 0
    """Clips that begin before this frame do not: it was already deleted when the epoch began."""


class Cursor(Struct, frozen=True, kw_only=True):
    """A place in a server's plan: enough to make the same plan again and continue in it."""

    epoch: Count = 0
    """How often the store was gone through before; stays 0 while it is followed."""
    round: Count = 0
    """How often what was added to a followed store has been planned."""
    index: Count = 0
    """Clips of this round's shard that are done."""
    base: dict[Name, Extent] = {}
    """What earlier rounds covered."""
    extents: dict[Name, Extent] = {}
    """What was committed when this round began."""
    fingerprint: Checksum = 0
    """CRC-32C of the round's recordings and clips, to notice that either has changed."""
    released: Count = 0
    """Clips of this round's shard that were deleted before the round was planned."""
    holdout: Share | None = None
    """Share of each of these recordings that the server held out; older cursors do not know it."""
