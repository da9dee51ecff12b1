"""The masks of a procedural scene, kept in a sidecar file next to its video.

`X.masks.h5` next to `X.mp4` holds `masks` (n, h, w), `pts_ns` (n) and `gap` (n).
"""

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from ingest.decoding.scaling import FitPlan
from ingest.errors import VideoError

SUFFIX = ".masks.h5"
_CACHE_BYTES = 16 << 20  # HDF5 decompresses a chunk once for all of its rows


def sidecar_path(video: Path) -> Path:
    """Where the masks of a video are, if it has any."""
    return video.parent / (video.stem + SUFFIX)


def find_sidecar(video: Path) -> Path | None:
    """The masks of a video, or None where there are none."""
    path = sidecar_path(video)
    # Path.is_file raises where the longer name is too long to be there
    return path if os.path.isfile(path) else None  # noqa: PTH113


@runtime_checkable
class VideoMasks(Protocol):
    """Label maps of the frames of a video."""

    counts_frames: bool
    """Whether frames are found by how many come before, all of which must then decode."""

    def row(self, *, pts_ns: int | None, index: int) -> int:
        """Where the masks of a frame are, by its time or by how many frames come before it.

        Raises VideoError where there are none.
        """
        ...

    def gap(self, row: int) -> bool:
        """Whether an episode begins at a row."""
        ...

    def placed(self, row: int, plan: FitPlan) -> UInt8[np.ndarray, "h w"]:
        """Label map of a row, fitted as its image: 0 is background, `UNKNOWN_LABEL` not known."""
        ...

    def close(self) -> None:
        """Release files."""
        ...


class MaskSidecar:
    """Label maps of a video, found by the time of a frame."""

    counts_frames = False

    def __init__(self, path: Path) -> None:
        import h5py  # few videos have masks, and it takes its time

        from ingest.disk.hdf5 import dataset

        self._path = path
        try:
            self._file = h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES)
            self._masks = dataset(self._file, "masks")
            self._pts_ns = np.asarray(dataset(self._file, "pts_ns")[:], np.int64)
            self._gap = np.asarray(dataset(self._file, "gap")[:], np.bool_)
        except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
            raise self._unusable(f"unreadable ({error})") from error
        if self._masks.ndim != 3 or not len(self._masks) == len(self._pts_ns) == len(self._gap):
            shapes = f"{self._masks.shape}, {self._pts_ns.shape}, {self._gap.shape}"
            raise self._unusable(f"masks, pts_ns and gap of shapes {shapes}")
        steps = np.diff(self._pts_ns)
        if np.any(steps <= 0):
            raise self._unusable("pts_ns does not grow strictly")
        self._tolerance_ns = int(steps.min()) // 4 if len(steps) else 0

    def row(self, *, pts_ns: int | None, index: int) -> int:
        """Row of the frame at a time, give or take a quarter of a frame; VideoError without one."""
        if pts_ns is None:
            raise self._unusable("finds masks by time, and there is a frame without a time")
        after = int(np.searchsorted(self._pts_ns, pts_ns))
        rows = [row for row in (after - 1, after) if 0 <= row < len(self._pts_ns)]
        row = min(rows, key=lambda row: abs(int(self._pts_ns[row]) - pts_ns), default=None)
        if row is None or abs(int(self._pts_ns[row]) - pts_ns) > self._tolerance_ns:
            raise self._unusable(f"no masks for the frame at {pts_ns / 1e9:.6f} s")
        return row

    def labels(self, row: int) -> UInt8[np.ndarray, "h w"]:
        """Label map of a row: 0 is background."""
        return np.asarray(self._masks[row], np.uint8)

    def placed(self, row: int, plan: FitPlan) -> UInt8[np.ndarray, "h w"]:
        """Label map of a row, fitted as its image."""
        return plan.place_nearest(self.labels(row))

    def gap(self, row: int) -> bool:
        """Whether an episode begins at a row."""
        return bool(self._gap[row])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unusable(self, found: str) -> VideoError:
        return VideoError(
            f"{self._path}: {found}; make the scene again, or move this file away from the video"
        )
