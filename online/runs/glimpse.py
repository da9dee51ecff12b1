"""`newest.npz`: the newest frame that a run has taken in, and what each of its slots looks at.

    frame      (h, w, 3)    uint8, at most `MOST_PIXELS` a side
    attention  (k, gh, gw)  uint8, shares of 255 on the encoder's grid
    segments   (h, w)       uint8, the slot of each pixel; only from slots that start at objects

It needs no probe, so it is there from the first step. A newer one replaces it.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import UInt8

from ingest.disk.durable import PARTIAL

MOST_PIXELS = 256
"""Longer side of the frame that is kept; of a larger one every second, third, ... pixel."""
MOST_CELLS = 128
"""The same of the grid of attention."""
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, BadZipFile, zlib.error),
    RuntimeError,  # zipfile, of what it takes for a password or a method that it lacks
)
"""What NumPy raises of an archive that is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Glimpse:
    """One frame through the eyes of the model at one step."""

    step: int
    recording: str
    frame_seconds: float
    """When the frame is in its recording."""
    frame: UInt8[np.ndarray, "h w 3"]
    attention: UInt8[np.ndarray, "k gh gw"]
    segments: UInt8[np.ndarray, "h w"] | None


def save_glimpse(path: Path, glimpse: Glimpse) -> None:
    """Replace the file in one step, without waiting for the disk."""
    every, cells = (
        subsampling(glimpse.frame, MOST_PIXELS),
        subsampling(glimpse.attention[0], MOST_CELLS),
    )
    arrays = {
        "frame": glimpse.frame[::every, ::every],
        "attention": glimpse.attention[:, ::cells, ::cells],
        "name": np.array(glimpse.recording.encode("utf-8", "surrogateescape")),
        "at": np.array([glimpse.step, glimpse.frame_seconds]),
    }
    if glimpse.segments is not None:
        arrays["segments"] = glimpse.segments[::every, ::every]
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **arrays)
    # one name for all writes, so that what a killed run left is replaced by the next one
    partial = path.with_name(f".{path.name}{PARTIAL}")
    partial.write_bytes(archive.getvalue())
    partial.replace(path)


def load_glimpse(path: Path) -> Glimpse | None:
    """What the file holds; None where there is none, or none that can be read."""
    try:
        # opened here: np.load would leave a damaged file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            step, seconds = (float(value) for value in arrays["at"])
            glimpse = Glimpse(
                step=int(step),
                recording=arrays["name"].item().decode("utf-8", "replace"),
                frame_seconds=seconds,
                frame=arrays["frame"],
                attention=arrays["attention"],
                segments=arrays["segments"] if "segments" in arrays.files else None,
            )
    except DAMAGE:
        return None
    return glimpse if _fits_together(glimpse) else None


def _fits_together(glimpse: Glimpse) -> bool:
    frame, attention, segments = glimpse.frame, glimpse.attention, glimpse.segments
    return (
        frame.dtype == attention.dtype == np.uint8
        and frame.ndim == attention.ndim == 3
        and frame.shape[2] == 3
        and frame.size > 0
        and attention.size > 0
        and (segments is None or segments.dtype == np.uint8)
        and (segments is None or segments.shape == frame.shape[:2])
    )


def subsampling(picture: np.ndarray, most: int) -> int:
    """Every how many-th row and column is kept, so that there are at most so many."""
    return -(-max(picture.shape[:2]) // most)
