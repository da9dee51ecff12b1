"""The trainers of one run: today there is one, and the place for more is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """Which of how many trainers this process is.

    Each asks the servers for its own share of the footage. All use one run directory: the first one
    locks it, writes checkpoints, log, probes and report, and the others only read it. A start of
    any of them continues from the first one's checkpoint: its weights, its replay, and its place in
    the plan, which the others take up in their own share.

    Their gradients are not exchanged: weights of ranks above 0 drift apart from those that are
    saved, until the next start.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank must lie in 0..size-1, got {self.rank} of {self.size}")

    @property
    def writes(self) -> bool:
        """Whether this process writes what is written once for all of them."""
        return self.rank == 0
