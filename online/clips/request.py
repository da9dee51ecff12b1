"""Which clips a trainer asks a server for: one value from the configuration to the plan."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from online.clips.clip import ClipConfig
from online.clips.limits import Count, Name, Small

Order = Literal["stream", "shuffled"]
"""Time order, or a block shuffle."""


class ClipRequest(Struct, frozen=True, kw_only=True):
    """What decides a trainer's plan; it travels as it is, and a checkpoint keeps it."""

    clip: ClipConfig = ClipConfig()
    recordings: Name = "*"
    """Glob of the recordings that clips are cut from."""
    order: Order | None = None
    """None leaves it to the server."""
    seed: Count = 0
    """Decides a shuffled order."""
    shard: Count = 0
    """Which of `shards` equal parts of every epoch: 0 is the first."""
    shards: Small = 1
    max_epochs: Count = 0
    """0 is without end."""

    def __post_init__(self) -> None:
        if not 0 <= self.shard < self.shards:
            raise ValueError(f"shard must lie in 0..shards-1, got {self.shard} of {self.shards}")
