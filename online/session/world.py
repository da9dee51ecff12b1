"""The trainers of one run, which learn from it together: today there is one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class World:
    """Which of how many trainers this process is.

    Each asks the servers for its own share of the footage. What all of them know, such as
    checkpoints, the log and the report, the first one writes.
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
