"""Where objects are: learned from what moves, predicted for single frames.

Pieces of a run that move are objects, and those that rest are doubted: an object rests as well now
and then. So labels are given to whole regions, by the evidence of their motion, to which what
the model thinks of them is added once it has learned something:

    score  = evidence + trust · mean of the model's logits
    target = 1 where score > 0.4,  0 where score < -0.15,  none between

An object that rests in one clip has moved in others, and looks the same.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Float
from torch import Tensor

from setcon.layers import Total, alone, at_least_float32
from setcon.supervoxels.supervoxels import Supervoxels

IGNORED = -1.0
"""The target of cells that may be either."""
_OBJECT, _REST = 0.4, -0.15
"""In six rendered recordings 69 to 89 % of the cells over the first belonged to objects, and up to
8 % of those under the second. Between them evidence is ignored: pieces of background next to
objects look as if they moved."""
_SUREST = 4.0  # a logit beyond it counts as this


def foreground_targets(
    pieces: Supervoxels, logits: Float[Tensor, "t r c"], *, trust: float
) -> Float[Tensor, "t r c"]:
    """1, 0 or `IGNORED` for every cell of a run."""
    score = pieces.evidence
    if trust > 0:
        score = score + trust * pieces.region_mean(logits.clamp(-_SUREST, _SUREST))
    target = torch.full_like(score, IGNORED)
    target[score > _OBJECT] = 1.0
    target[score < _REST] = 0.0
    return target.float()[pieces.labels]


def foreground_loss(
    logits: Float[Tensor, "n p"], targets: Float[Tensor, "n p"], *, total: Total = alone
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of the cells that have a target.

    With `total`, this is the part of these cells in the mean over those of more.
    """
    known = targets != IGNORED
    logits = at_least_float32(logits)
    losses = F.binary_cross_entropy_with_logits(
        logits, targets.clamp_min(0).to(logits), reduction="none"
    )
    return (losses * known).sum() / total(known.sum()).clamp_min(1)
