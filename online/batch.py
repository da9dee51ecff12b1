"""Clips as tensors: the only place where frames leave numpy.

    clips         a: 7 frames            b: 5 frames (the end of a run)
    frames        a0 a1 a2 a3 a4 a5 a6   b0 b1 b2 b3 b4 b4 b4      "b t 3 h w"
    valid (s=2)               1  1  1                1  0  0       "b t-2s"

A shorter clip is filled up with its last frame, an image like its neighbours, so that layers which
look at the whole batch are not upset; ``valid`` keeps what is filled up out of every loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from online.clip import Clip, ClipConfig


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Clips of one frame size, stacked."""

    frames: Float[Tensor, "b t 3 h w"]
    """Images in [0, 1], earliest first, in channels_last memory."""
    valid: Bool[Tensor, "b l"]
    """l = t - 2 * frame_stride. ``valid[i, j]``: clip i owns the triplet that ends at its frame
    j + 2 * frame_stride. False where a clip is filled up, and between hops."""


def collate(clips: Sequence[Clip], config: ClipConfig) -> Batch:
    """Stack clips; pixels are copied once, on the way from bytes to floats.

    Raises:
        ValueError: no clip, or clips of different frame sizes.
    """
    sizes = {clip.images.shape[1:] for clip in clips}
    if len(sizes) != 1:
        raise ValueError(f"a batch needs clips of one frame size, got {sorted(sizes)}")
    (h, w, _), t = sizes.pop(), max(len(clip.images) for clip in clips)
    frames = torch.empty(len(clips), t, h, w, 3)
    valid = torch.zeros(len(clips), t - config.overlap, dtype=torch.bool)
    for row, mask, clip in zip(frames, valid, clips, strict=True):
        n = len(clip.images)
        row[:n].copy_(_tensor(clip.images))
        row[n:] = row[n - 1]
        mask[: n - config.overlap : config.hop] = True
    return Batch(frames.div_(255).permute(0, 1, 4, 2, 3), valid)


def to_images(images: UInt8[np.ndarray, "*n h w 3"]) -> Float[Tensor, "*n 3 h w"]:
    """Bytes as floats in [0, 1], channels first in channels_last memory; one copy."""
    return _tensor(images).float().div_(255).movedim(-1, -3)


def _tensor(images: UInt8[np.ndarray, "*n h w 3"]) -> UInt8[Tensor, "*n h w 3"]:
    # torch has no read-only tensors and warns; such arrays are views of somebody's buffer
    return torch.from_numpy(images if images.flags.writeable else images.copy())
