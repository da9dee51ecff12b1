"""Frames of a batch that a model learns the foreground from, where its slots start at objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from online.training.batch import Batch
from setcon.model import SetConOutput
from setcon.slots.foreground import IGNORED, foreground_targets

FRAMES = 16
"""About so many of a batch are learned from in each step."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Some frames of each clip, and what is foreground in them."""

    frames: UInt8[Tensor, "b _t h w 3"]
    truth: Float[Tensor, "n p"]
    maps: Sequence[Float[Tensor, "b _t _c _r _s"]] | None


def chosen_frames(
    frames: UInt8[Tensor, "b t h w 3"],
    batch: Batch,
    output: SetConOutput,
    *,
    trust: float,
    num_clips: int,
    turn: int,
) -> Chosen:
    """Frames of each clip, evenly spread, as neighbours have little to add; others in each `turn`.

    `trust` is that of `foreground_targets`, `num_clips` are the clips of all processes.
    """
    assert output.foreground is not None
    assert batch.pieces is not None
    targets = [
        foreground_targets(piece, logits.view(piece.labels.shape), trust=trust)
        for piece, logits in zip(batch.pieces, output.foreground.detach().cpu(), strict=True)
    ]
    t = frames.shape[1]
    lengths = t - batch.valid.shape[1] + batch.valid.sum(dim=1)
    for target, length in zip(targets, lengths.tolist(), strict=True):
        target[length:] = IGNORED  # a clip is filled up there
    apart = min(t, -(-t * num_clips // FRAMES))  # at least one of each clip
    chosen = slice(turn % apart, None, apart)
    return Chosen(
        frames=frames[:, chosen],
        truth=torch.stack(targets)[:, chosen].flatten(0, 1).flatten(1),
        maps=None if batch.maps is None else [each[:, chosen] for each in batch.maps],
    )
