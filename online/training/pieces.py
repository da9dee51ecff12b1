"""Supervoxels of clips, computed once for each while the replay holds it.

They depend on a clip's frames alone, so that no checkpoint needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from online.clips.clip import Clip
from online.training.batch import Batch
from setcon.supervoxels.supervoxels import Supervoxels, neighbour_distance


class Pieces:
    """Supervoxels of the clips that are alive."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Clip, Supervoxels] = WeakKeyDictionary()

    def added(self, batch: Batch, clips: Sequence[Clip]) -> Batch:
        """`batch`, which was collated from `clips`, with their supervoxels."""
        pieces = [self._of(*each) for each in zip(clips, batch.frames, strict=True)]
        return replace(batch, pieces=tuple(pieces))

    def of(self, clip: Clip) -> Supervoxels:
        """Those of a clip as it is; evidence is only there if it was in a batch of its length."""
        known = self._known.get(clip)
        if known is None or len(known.labels) != len(clip.frames):
            return Supervoxels.of(torch.from_numpy(clip.frames.images.copy()), distance=None)
        return known

    def _of(self, clip: Clip, frames: UInt8[Tensor, "t h w 3"]) -> Supervoxels:
        """Those of a clip that may be filled up; a batch may fill it up to another length."""
        known = self._known.get(clip)
        if known is None or len(known.labels) != len(frames):
            seconds = float(np.median(np.diff(clip.frames.pts_ns))) / 1e9
            distance = neighbour_distance(seconds, num_frames=len(clip.frames))
            known = Supervoxels.of(frames, distance=distance, filled_from=len(clip.frames))
            self._known[clip] = known
        return known
