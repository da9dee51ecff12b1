"""Which of several processes of one run this is, by the variables that torchrun sets."""

from __future__ import annotations

import os
from dataclasses import dataclass

from online.errors import ConfigError

_CONTRACT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Rank:
    """A process, and how many there are."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those of this machine."""


def rank_here() -> Rank:
    """This process; the only one where torchrun has not started it."""
    if not all(name in os.environ for name in _CONTRACT):
        return Rank()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    return Rank(*(int(os.environ.get(name, "0")) for name in names))


def check_shards(shards: int, ranks: int, *, what: str) -> None:
    """Refuse a number of ranks that shards cannot be dealt to equally.

    `what` begins the message, and says how many shards there are. Raises ConfigError.
    """
    if shards % ranks:
        raise ConfigError(
            f"{what}, which {ranks} ranks cannot share equally; use a number of ranks that "
            "divides it"
        )
