"""Which cells move on their own: those that the background's motion does not explain.

    d_k   = |frame at t + k, moved back by the background's motion - frame at t|     k = ±distance
            of frames that are smoothed a little, in the channel that differs most
    ratio = cell mean of min(d_-k, d_k) / (its median over the picture + 2 grey levels)

Of both neighbours the smaller difference counts: what is only uncovered differs in one of them. The
ratio is read as evidence, by how often it occurs in moving objects and in what is at rest:

    ratio                over 5     1.8 to 5     below 1.8
    objects               0.10        0.25         0.65
    the rest              0.002       0.025        0.97
    log of the quotient   3.9         2.2         -0.4

measured on rendered recordings of several kinds. A textured object rarely differs as a whole, a
plain one only along its outline, and one at rest not at all: a single cell decides nothing.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Float
from torch import Tensor

from setcon.supervoxels.registration import background_flow, warped

MOVES, MAY_MOVE = 5.0, 1.8
FOR_MOVES, FOR_MAY_MOVE, FOR_REST = 3.9, 2.2, -0.4
NOISE = 2.0
"""Grey levels that a camera's noise and compression change."""
STILL = 1.05
"""The background's motion must explain pictures this much better than no motion, to be used."""
_EVERY = 5  # pixels of which one is looked at for that
EXPLAINED = 0.6
"""Share of the pixels, those that are explained best, which decides that."""


def motion_evidence(
    frames: Float[Tensor, "t 3 h w"], *, cell: int, distance: int
) -> Float[Tensor, "t h//{cell} w//{cell}"]:
    """For each cell, the log of how much likelier it looks if it belongs to a moving object.

    Values of `frames` are in 0..255. Frames are compared with those `distance` before and after
    them; frames that lack one of both are given no evidence, 0.
    """
    t = len(frames)
    evidence = torch.zeros(t, frames.shape[2] // cell, frames.shape[3] // cell)
    if t <= 2 * distance:
        return evidence
    middle = slice(distance, t - distance)
    smooth = _smoothed(frames)
    before = _difference(smooth[middle], smooth[: t - 2 * distance])
    after = _difference(smooth[middle], smooth[2 * distance :])
    cells = F.avg_pool2d(torch.minimum(before, after)[:, None], cell)[:, 0]
    noise = cells.flatten(1).median(dim=1).values + NOISE
    ratio = cells / noise[:, None, None]
    evidence[middle] = FOR_REST
    evidence[middle][ratio > MAY_MOVE] = FOR_MAY_MOVE
    evidence[middle][ratio > MOVES] = FOR_MOVES
    return evidence


def _difference(
    frames: Float[Tensor, "n 3 h w"], others: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "n h w"]:
    """What is left of the difference to other frames where the background is moved onto itself."""
    small, others_small = (
        F.avg_pool2d(x.mean(dim=1, keepdim=True), 2)[:, 0] for x in (frames, others)
    )
    flow, light = background_flow(small, others_small)
    flow = 2 * F.interpolate(flow, size=frames.shape[2:], mode="bilinear")
    moved, inside = warped(others, flow)
    gain, offset = light[:, :1, None, None], light[:, 1:, None, None]
    left = (moved - frames * (1 + gain) - offset).abs().amax(dim=1)
    still = (others - frames).abs().amax(dim=1)
    # a motion that takes the picture out of sight explains nothing, nor does one that is not finite
    explained = _of_the_explained(torch.where(inside, left, torch.inf))
    moves = STILL * explained < _of_the_explained(still)
    return torch.where(moves[:, None, None], left * inside, still)


def _smoothed(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _of_the_explained(difference: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Mean of the smallest differences."""
    ordered = difference.flatten(1)[:, ::_EVERY].sort(dim=1).values
    return ordered[:, : int(EXPLAINED * ordered.shape[1])].mean(dim=1)
