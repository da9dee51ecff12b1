"""Clips as tensors: the only place where frames leave numpy, and come back.

    clips         a: 7 frames            b: 5 frames (the end of a run)
    frames        a0 a1 a2 a3 a4 a5 a6   b0 b1 b2 b3 b4 b4 b4      "b t h w 3"
    valid (s=2)               1  1  1                1  0  0       "b t-2s"

A shorter clip is filled up with its last frame, an image like its neighbours, so that layers which
look at the whole batch are not upset; `valid` keeps what is filled up out of every loss. Frames
stay bytes until they are on the device that learns from them: floats are four times as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import BFloat16, Bool, Float, UInt8
from torch import Tensor

from online.clips.clip import Clip, ClipConfig
from setcon.slots.object_slots import as_bytes
from setcon.supervoxels.supervoxels import Supervoxels


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Clips of one frame size, stacked."""

    frames: UInt8[Tensor, "b t h w 3"]
    """Earliest first."""
    valid: Bool[Tensor, "b l"]
    """l = t - 2 * frame_stride. `valid[i, j]`: clip i owns the triplet that ends at its frame
    j + 2 * frame_stride. False where a clip is filled up."""
    pieces: tuple[Supervoxels, ...] | None = None
    """Those of each clip, for slots that start at objects."""
    maps: tuple[BFloat16[Tensor, "b t _c _r _s"], ...] | None = None
    """What each layer of a frozen encoder makes of the frames, where that is kept."""


def collate(clips: Sequence[Clip], config: ClipConfig, *, num_frames: int | None = None) -> Batch:
    """Stack clips; their bytes are copied once.

    They are filled up to `num_frames`, and by default to the longest of them.

    Raises ValueError: no clip, or clips of different frame sizes.
    """
    sizes = {clip.frames.images.shape[1:] for clip in clips}
    if len(sizes) != 1:
        raise ValueError(f"a batch needs clips of one frame size, got {sorted(sizes)}")
    t = num_frames or max(len(clip.frames) for clip in clips)
    frames = np.empty((len(clips), t, *sizes.pop()), np.uint8)
    valid = torch.zeros(len(clips), t - config.overlap, dtype=torch.bool)
    for row, mask, clip in zip(frames, valid, clips, strict=True):
        n = len(clip.frames)
        row[:n] = clip.frames.images
        row[n:] = clip.frames.images[-1]
        mask[: n - config.overlap] = True
    return Batch(torch.from_numpy(frames), valid)


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of several of equally many frames, clip after clip."""
    if len(batches) == 1:
        return batches[0]
    pieces = [batch.pieces for batch in batches if batch.pieces is not None]
    maps = [batch.maps for batch in batches if batch.maps is not None]
    return Batch(
        torch.cat([batch.frames for batch in batches]),
        torch.cat([batch.valid for batch in batches]),
        tuple(chain(*pieces)) if pieces else None,
        tuple(map(torch.cat, zip(*maps, strict=True))) if maps else None,
    )


def to_images(images: UInt8[np.ndarray, "*n h w 3"]) -> Float[Tensor, "*n 3 h w"]:
    """Bytes as floats in [0, 1], channels first in channels_last memory; one copy."""
    # torch has no read-only tensors and warns; such arrays are views of another object's buffer
    return as_floats(torch.from_numpy(images if images.flags.writeable else images.copy()))


def to_bytes(images: Float[Tensor, "*n 3 h w"]) -> UInt8[np.ndarray, "*n h w 3"]:
    """Floats as bytes, rounded and clipped to [0, 1]; channels last."""
    return as_bytes(images).numpy()


def as_floats(frames: UInt8[Tensor, "*n h w 3"]) -> Float[Tensor, "*n 3 h w"]:
    """Bytes as floats in [0, 1], channels first in channels_last memory, where they are."""
    return frames.float().div_(255).movedim(-1, -3)
