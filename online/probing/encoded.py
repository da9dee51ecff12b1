"""Footage as the probe sees it: the frames that have a prediction, and their slots.

clip        c c f f f f    c c f f f f      the frames that predict, then `clip_length` others
targets         f f f f        f f f f      one row per frame, all clips one after another
slots           s s s s        s s s s      s_t, p_t, and s_{t - frame_stride}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from online.clips.clip import ClipConfig
from online.errors import Diverged
from online.probing.footage import Footage
from online.training.batch import to_images
from setcon.model import SetCon
from setcon.supervoxels.supervoxels import Supervoxels

ENCODED_AT_ONCE = 64
"""Frames."""


@dataclass(frozen=True, eq=False)
class CutFootage:
    """Footage and its targets, cut out once for every probe that is fitted to or scored on them."""

    footage: Footage
    clip: ClipConfig
    targets: UInt8[np.ndarray, "n h w 3"]
    masks: UInt8[Tensor, "n h w"] | None
    """Label maps of the targets, 0 is background; None where the footage has none."""

    def pieces(self, clips: range) -> list[Supervoxels]:
        """The supervoxels of some clips: they do not depend on a model, so they are found once."""
        return [self._pieces_of(clip) for clip in clips]

    def _pieces_of(self, clip: int) -> Supervoxels:
        if clip not in self._pieces:
            frames = torch.from_numpy(self.footage.images[clip])
            self._pieces[clip] = Supervoxels.of(frames, distance=None)
        return self._pieces[clip]

    @cached_property
    def _pieces(self) -> dict[int, Supervoxels]:
        return {}

    @classmethod
    def of(cls, footage: Footage, clip: ClipConfig) -> CutFootage:
        """Cut the targets out of clips of this form; their pixels are copied."""
        masks = None if footage.masks is None else _rows(footage.masks, clip)
        return cls(
            footage=footage,
            clip=clip,
            targets=_rows(footage.images, clip),
            masks=None if masks is None else torch.from_numpy(masks),
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.targets.shape[1], self.targets.shape[2]

    @property
    def clips(self) -> int:
        """How many clips the targets belong to; each clip has equally many."""
        return len(self.footage)

    def caption(self, row: int) -> str:
        """Recording and time of a target."""
        clip, frame = divmod(row, self.clip.clip_length)
        seconds = self.footage.pts_ns[clip, self.clip.overlap + frame] / 1e9
        return f"{self.footage.specs[clip].recording} {seconds:.1f} s"


@dataclass(frozen=True, slots=True, eq=False)
class ProbeFootage:
    """What a probe is fitted on, and what it is scored on."""

    train: CutFootage
    held_out: CutFootage


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFootage:
    """The slots of all targets, one row per target."""

    current: Float[Tensor, "n k d"]
    predicted: Float[Tensor, "n k d"]
    copied: Float[Tensor, "n k d"]
    """The slots of the frame one stride before, which `predicted` starts from."""
    attention: Float[Tensor, "n k p"]
    segments: Int64[Tensor, "n h w"] | None
    """Whose each pixel is, where slots start at objects and outlines were asked for."""


@torch.no_grad()
def encode(
    model: SetCon,
    cut: CutFootage,
    *,
    device: torch.device,
    outlines: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> EncodedFootage:
    """What `model`, which is on `device`, makes of the targets; with `outlines` also `segments`.

    Raises Diverged: slots are NaN or infinite.
    """
    parts: list[tuple[Tensor, ...]] = []
    segments: list[Tensor] = []
    images, s = cut.footage.images, cut.clip.frame_stride
    clips_at_once = max(1, ENCODED_AT_ONCE // images.shape[1])
    for start in range(0, len(images), clips_at_once):
        some = range(start, min(start + clips_at_once, len(images)))
        frames = to_images(images[some.start : some.stop]).to(device)
        pieces = cut.pieces(some) if model.config.finds_objects else None
        output = model(frames, frame_stride=s, pieces=pieces, outlines=outlines)
        kinds = (
            *(output.slots[:, 2 * s :], output.predicted, output.slots[:, s:-s]),
            output.attention[:, 2 * s :],
        )
        parts.append(tuple(kind.flatten(0, 1) for kind in kinds))
        if output.segments is not None:
            segments.append(output.segments[:, 2 * s :].flatten(0, 1))
        progress(some.stop / len(images))
    current, predicted, copied, attention = (torch.cat(p) for p in zip(*parts, strict=True))
    if not (current.isfinite().all() and predicted.isfinite().all()):
        raise Diverged(
            "slots contain NaN or inf: the model has diverged; lower "
            "optimizer.learning_rate, in a new run"
        )
    found = torch.cat(segments) if segments else None
    return EncodedFootage(current, predicted, copied, attention, found)


def _rows(frames: UInt8[np.ndarray, "m t ..."], clip: ClipConfig) -> UInt8[np.ndarray, "n ..."]:
    targets = frames[:, clip.overlap :]
    return targets.reshape(-1, *targets.shape[2:])
