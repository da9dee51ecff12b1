"""The `stream` section of a run's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest, Order
from setcon.checks import check_at_least

CREDIT_BYTES = 64 << 20
"""Bytes of clips that may be in flight from a server."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Which clips are asked of the servers."""

    clip_length: int = 32
    """Triplets that a full clip owns."""
    frame_stride: int = 1
    """Distance in frames between the three frames of a triplet."""
    recordings: str = "*"
    """Glob of the recordings that are trained on."""
    order: Order | None = None
    """`stream` is time order, `shuffled` a block shuffle; if it is not set, the server decides."""
    max_epochs: int = 0
    """Passes through the store; 0 for no limit."""
    credit_bytes: int = CREDIT_BYTES
    """Bytes that may be in flight from each server, for each shard; at least two clips."""
    max_delay_seconds: float = 300.0
    """Camera footage older than this when its turn comes is skipped and counted, so that a slow
    trainer's delay stops growing; 0 skips nothing. Finished recordings, and stores served without
    --follow, are never skipped for their age."""

    def __post_init__(self) -> None:
        _ = self.clip  # which checks its own
        check_at_least(0, max_epochs=self.max_epochs, max_delay_seconds=self.max_delay_seconds)

    @property
    def clip(self) -> ClipConfig:
        """How recordings are cut."""
        return ClipConfig(clip_length=self.clip_length, frame_stride=self.frame_stride)

    def request(self, *, seed: int, shard: int = 0, shards: int = 1) -> ClipRequest:
        """What is asked of every server, by one of `shards` trainers that share the footage."""
        return ClipRequest(
            clip=self.clip,
            recordings=self.recordings,
            order=self.order,
            seed=seed,
            shard=shard,
            shards=shards,
            max_epochs=self.max_epochs,
        )
