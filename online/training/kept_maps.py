"""What a frozen encoder makes of each frame, computed once for each clip that the replay holds.

It depends on the frames and on weights that never change, so that no checkpoint needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from jaxtyping import BFloat16
from torch import Tensor

from online.clips.clip import Clip
from online.training.batch import Batch
from online.training.trainer import Trainer

Maps = tuple[BFloat16[Tensor, "t _c _r _s"], ...]


class KeptMaps:
    """The maps of the clips that are alive, on the CPU."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._known: WeakKeyDictionary[Clip, Maps] = WeakKeyDictionary()

    def added(self, batch: Batch, clips: Sequence[Clip]) -> Batch:
        """`batch`, which was collated from `clips`, with their maps."""
        t = batch.frames.shape[1]
        of_clips = [[_filled_up(each, t) for each in self._of(clip)] for clip in clips]
        return replace(batch, maps=tuple(map(torch.stack, zip(*of_clips, strict=True))))

    def _of(self, clip: Clip) -> Maps:
        """Those of a clip as it is, so that they are the same in every batch."""
        known = self._known.get(clip)
        if known is None:
            known = self._known[clip] = self._trainer.maps(
                torch.from_numpy(clip.frames.images.copy())
            )
        return known


def _filled_up(
    maps: BFloat16[Tensor, "t c r s"], length: int
) -> BFloat16[Tensor, "{length} c r s"]:
    """With the last one again, as a batch fills clips up."""
    return torch.cat([maps, maps[-1:].expand(length - len(maps), -1, -1, -1)])
