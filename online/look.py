"""What footage looks like before anything is learned from it: its camera, its length, what moves.

camera      half of the pixels that change least within two seconds: do they stay as they are?
own motion  share of the cells that move and that the background's motion does not explain
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from ingest.store.protocols import RecordingReader, Store
from online.scores.numbers import duration
from setcon.supervoxels.evidence import FOR_MOVES, motion_evidence
from setcon.supervoxels.supervoxels import CELL, neighbour_distance

ENOUGH_SECONDS = 15.0
"""Shorter footage shows too little for objects to be learned from."""
MOVES = 5.0
"""Grey levels: what half of the pixels change by, at least, under a moving camera. In the footage
that was tried it was 0 to 1 under fixed cameras, and 7 to 56 under moving ones."""
LEAST_OWN = 0.002
"""Share of a picture that must move on its own at some time."""
_LOOKS = 16
_LATER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a recording looks like."""

    name: str
    seconds: float
    change: float
    """Grey levels by which half of the pixels change within two seconds, or more."""
    own: float
    """Largest share of a picture that moves on its own."""

    @property
    def camera_moves(self) -> bool:
        """Whether the camera moves."""
        return self.change >= MOVES

    @property
    def text(self) -> str:
        """One line: what it is, and how one can tell."""
        camera, than = ("moving", "") if self.camera_moves else ("fixed", "only ")
        return (
            f"{self.name}: {duration(self.seconds)} from a {camera} camera (within "
            f"{_LATER_SECONDS:g} s half of the pixels change by {than}{self.change:.0f} of 255 or "
            f"{'more' if self.camera_moves else 'less'})"
        )

    @property
    def faults(self) -> list[str]:
        """What speaks against learning objects from it, a line each."""
        found = []
        if self.seconds < ENOUGH_SECONDS:
            found.append(
                f"{self.name}: {duration(self.seconds)} is little to learn objects from; "
                f"{ENOUGH_SECONDS:g} s or more are better"
            )
        if self.own < LEAST_OWN:
            found.append(
                f"{self.name}: nothing was seen to move on its own, and objects are learned from "
                "what does; expect none, or take footage in which something moves"
            )
        return found


def look_at(store: Store, name: str) -> Look:
    """Look at some moments of a recording, spread over its length.

    Raises StoreError: they cannot be read.
    """
    commit = store.commit(name)
    seconds = commit.duration_seconds
    each = seconds / max(1, commit.length - 1)
    near = neighbour_distance(each, num_frames=commit.length)
    far = min(round(_LATER_SECONDS / each) if each else 1, commit.length - 1)
    with store.reader(name) as reader:
        first = np.linspace(0, max(0, commit.length - 1 - far), _LOOKS).astype(int)
        changes = [_change(_picture(reader, i), _picture(reader, i + far)) for i in first.tolist()]
        middle = np.linspace(near, max(near, commit.length - 1 - near), _LOOKS).astype(int)
        own = [_own(reader, i, near, commit.length) for i in middle.tolist()]
    return Look(name=name, seconds=seconds, change=float(np.median(changes)), own=max(own))


def _picture(reader: RecordingReader, index: int) -> UInt8[np.ndarray, "h w 3"]:
    return reader.read(index, index + 1).images[0]


def _change(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    """What half of the pixels change by at most, in the channel that changes most."""
    return float(np.median(np.abs(a.astype(np.int16) - b).max(axis=2)))


def _own(reader: RecordingReader, index: int, near: int, length: int) -> float:
    """Share of the cells of a frame that move on their own."""
    if length <= 2 * near:
        return 0.0
    three = np.stack([_picture(reader, at) for at in (index - near, index, index + near)])
    frames = torch.from_numpy(three).permute(0, 3, 1, 2).float()
    evidence = motion_evidence(frames, cell=CELL, distance=1)[1]
    return float((evidence == FOR_MOVES).float().mean())
