"""What became of every clip that a run was offered, in order: the proof that none was lost.

    {"kind": "inserted", "spec": {"recording": "desk", ...}, "epoch": 0, "index": 17, "offered": 18}

One JSON line per clip, written as it happens. A trainer that was killed goes on at its checkpoint
and inserts the clips since then again, so they have two lines: `offered`, which a checkpoint holds,
says from which line on the older ones no longer count.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from online.queue.feed import Fate, Feed


def keep_ledger(path: Path) -> None:
    """Have every feed of this process write the fates of its clips to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    init = Feed.__init__

    def write(fate: Fate) -> None:
        # one write, unbuffered: what a kill leaves is whole lines
        os.write(descriptor, msgspec.json.encode(fate) + b"\n")

    def observed(self: Feed, *args: Any, **options: Any) -> None:
        init(self, *args, **options, observe=write)

    Feed.__init__ = observed


def read_ledger(path: Path) -> list[Fate]:
    """The fates that count, in order.

    Raises ValueError: a clip between two lines has none, so a checkpoint was ahead of the ledger.
    """
    fates: list[Fate] = []
    for line in path.read_bytes().splitlines():
        fate = msgspec.json.decode(line, type=Fate)
        del fates[fate.offered - 1 :]
        if len(fates) != fate.offered - 1:
            raise ValueError(f"{path}: clip {fate.offered} comes after {len(fates)} clips")
        fates.append(fate)
    return fates
