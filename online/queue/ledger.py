"""What became of every clip that a run was offered, in order: the proof that none was lost.

    {"fate": "inserted", "server": 0, "epoch": 0, "round": 0, "index": 17, "recording": "desk", ...}

One JSON line per clip, appended as it happens. A checkpoint notes how long the ledger is and a
resume cuts it back to that, so after any number of crashes it tells of each clip once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from online.errors import LedgerError

Fate = Literal["inserted", "skipped"]


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One clip, by its place in its server's plan and by its frames."""

    fate: Fate
    """`skipped` is footage of a camera that the trainer was too slow for, or came too late."""
    server: int
    """Which of the run's servers sent it, in their order."""
    epoch: int
    round: int
    """How often what was added to a followed store had been planned."""
    index: int
    """Position in the plan of the epoch and round."""
    recording: str
    start: int
    """First frame."""
    length: int
    """Frames."""


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(LedgerEntry)


class Ledger:
    """A file that entries are appended to; `size` is what a checkpoint remembers of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def append(self, entry: LedgerEntry) -> None:
        """Write one line; it is safely on disk after the next `sync`."""
        self._file.write(_ENCODER.encode(entry) + b"\n")

    def sync(self) -> None:
        """Put on disk what was appended: before a checkpoint that speaks of it."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def cut_back(self, size: int) -> None:
        """Forget what was appended after the ledger had `size` bytes.

        Raises LedgerError: it has fewer.
        """
        self._file.flush()
        if self.size < size:
            raise LedgerError(
                f"{self._path}: has {self.size} bytes, the checkpoint speaks of {size}; "
                "restore it from a copy, or start a new run"
            )
        self._file.truncate(size)
        self._file.seek(size)

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        self._file.close()


def read_ledger(path: Path) -> list[LedgerEntry]:
    """All entries; a line that a kill has torn at the end is left out.

    Raises LedgerError: another line is not an entry.
    """
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
    try:
        return [_DECODER.decode(line) for line in lines]
    except msgspec.DecodeError as error:
        raise LedgerError(f"{path}: holds a line that is no entry ({error})") from error
