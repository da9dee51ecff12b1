"""Counts of clips inserted and drawn, and how many must come before the next batch.

    batch               1   2   3   4   5       S = 2 samples per insert, batches of n = 4 clips
    inserts before it   4   0   2   2   2       the first batch waits until it can be full

Before batch b, ceil(b n / S) clips must have come in all, and no more may: then a clip is drawn S
times on average, and neither side runs ahead of the other.
"""

from __future__ import annotations

import math
from typing import Any


class Limiter:
    """Counts both sides, and says which of them is due."""

    def __init__(self, samples_per_insert: float, *, batch_clips: int, min_clips: int) -> None:
        self.inserts = 0
        self.samples = 0
        self.batches = 0
        self._samples_per_insert = samples_per_insert
        self._batch_clips = batch_clips
        self._warm = max(min_clips, batch_clips)
        self._refill = 0

    def inserts_due(self) -> int:
        """How many clips must be inserted before the next batch, and may be."""
        earned = math.ceil((self.samples + self._batch_clips) / self._samples_per_insert)
        return max(0, max(self._warm, earned) - self.inserts, self._refill)

    def inserted(self) -> None:
        """Count a clip."""
        self.inserts += 1
        self._refill = max(0, self._refill - 1)

    def drawn(self, clips: int) -> None:
        """Count a batch."""
        self.samples += clips
        self.batches += 1

    def lost(self, clips: int, *, left: int) -> None:
        """Let as many new clips be due as can no longer be had, up to what the first batch took."""
        self._refill = max(0, min(self._refill + clips, self._warm - left))

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "inserts": self.inserts,
            "samples": self.samples,
            "batches": self.batches,
            "refill": self._refill,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Count on from `state`."""
        self.inserts, self.samples = state["inserts"], state["samples"]
        self.batches = state["batches"]
        self._refill = state.get("refill", 0)  # older checkpoints have lost no clips
