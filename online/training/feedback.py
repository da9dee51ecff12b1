"""What a step found out about each of its clips, for the replay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from setcon.loss import ContrastiveLoss
from setcon.matching import Matching
from setcon.model import SetConOutput


def feedback_of(
    output: SetConOutput, contrast: ContrastiveLoss, parts: Sequence[Matching], rank: int
) -> Float[Tensor, "b columns"]:
    """For each clip of this process its features and, in the last column, its loss.

    `contrast` is of the clips of all processes, of which each has one of `parts`.
    """
    b, t = output.slots.shape[:2]
    own, before = parts[rank], parts[:rank]
    first = sum(len(part.states) for part in before)
    states = contrast.states.detach()[first : first + len(own.states)]
    predictions = own.ahead[0].predictions
    first = sum(len(part.ahead[0].predictions) for part in before)
    each = contrast.each[first : first + len(predictions)]
    features = _means(states, own.states // t, b)
    losses = _means(each[:, None], predictions // output.predicted.shape[1], b)
    return torch.cat([features, losses], dim=1)


def _means(
    values: Float[Tensor, "s e"], clips: Int[Tensor, " s"], num_clips: int
) -> Float[Tensor, "{num_clips} e"]:
    """Mean of the values of each clip, in float32."""
    # a product: index_add_ may wait for the GPU to see whether its indices are in range
    of_clip = (clips == torch.arange(num_clips, device=clips.device)[:, None]).float()
    return of_clip @ values.float() / of_clip.sum(dim=1, keepdim=True)
