"""Other views of the clips of a batch, for footage whose frames differ in more than their objects.

    clip ─▶ moved by (dy, dx), mirrored at its border ─▶ perhaps left and right swapped
         ─▶ each frame moved by a (dy, dx) of its own
         ─▶ every colour channel brightened and stretched, each by its own numbers

From a few hundred frames an encoder learns to recognise the time: clips are shown moved, mirrored
and in other colours, all frames of a clip alike, so that what moves in it moves on. Under a moving
camera it learns where the camera looks, which finds the next frame as well. If each frame jitters
by itself, only the positions of objects relative to each other still find it. The paper augments
nothing: its footage is unlimited, and its camera does not move.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from online.training.batch import Batch
from online.training.config import AugmentConfig
from setcon.supervoxels.supervoxels import CELL


def augmented(batch: Batch, config: AugmentConfig, *, key: str) -> Batch:
    """`batch` with every clip changed as `key` decides, and by nothing else."""
    if config == AugmentConfig():
        return batch
    rng = random.Random(key)  # stable between versions, and a resumed run has nothing to restore
    height, width = batch.frames.shape[2:4]
    clips, pieces = [], []
    for index, clip in enumerate(batch.frames):
        rows = _moved(height, config.shift, rng)
        columns = _moved(width, config.shift, rng)
        mirrored = config.flip and rng.random() < 0.5
        if batch.pieces is not None and width % CELL:
            mirrored = False  # the cells of the mirrored clip would be others
        if mirrored:
            columns = columns.flip(0)
        if batch.pieces is not None:
            pieces.append(batch.pieces[index].mirrored() if mirrored else batch.pieces[index])
        if config.jitter:
            view = torch.stack(
                [
                    frame[rows[_moved(height, config.jitter, rng)]][
                        :, columns[_moved(width, config.jitter, rng)]
                    ]
                    for frame in clip
                ]
            )
        else:
            view = clip.index_select(1, rows).index_select(2, columns)
        clips.append(_coloured(view, config.colour, rng) if config.colour else view)
    return Batch(torch.stack(clips), batch.valid, None if batch.pieces is None else tuple(pieces))


def _moved(size: int, share: float, rng: random.Random) -> Int64[Tensor, " n"]:
    """Where each row or column comes from: 2 1 0 1 2 3 for one that is moved by two."""
    most = min(round(share * size), size - 1)
    index = torch.arange(size) + rng.randint(-most, most)
    return (size - 1) - ((size - 1) - index.abs()).abs()


def _coloured(
    clip: UInt8[Tensor, "t h w 3"], most: float, rng: random.Random
) -> UInt8[Tensor, "t h w 3"]:
    values = np.arange(256) / 255
    channels = []
    for channel in clip.numpy().transpose(3, 0, 1, 2):
        changed = values * (1 + rng.uniform(-most, most)) + rng.uniform(-most, most)
        table = np.rint(255 * changed.clip(0, 1)).astype(np.uint8)
        channels.append(table[channel])
    return torch.from_numpy(np.stack(channels, axis=-1))
