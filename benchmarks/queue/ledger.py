"""What became of every clip that a run was offered, in order: the proof that none was lost.

    {"kind": "inserted", "spec": {"recording": "desk", ...}, "epoch": 0, "index": 17, "offered": 18}

One JSON line per clip, written as it happens. A trainer that was killed goes on at its checkpoint
and inserts the clips since then again, so they have two lines: `offered`, which a checkpoint holds,
says from which line on the older ones no longer count.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from online.queue.feed import Fate


def ledger_writer(path: Path) -> Callable[[Fate], None]:
    """What writes the fates of clips to `path`, after those of earlier starts of the run."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(fate: Fate) -> None:
        # one write, unbuffered: what a kill leaves is whole lines
        os.write(descriptor, msgspec.json.encode(fate) + b"\n")

    return write


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
