"""How well slots separate objects, how close images are, and whether vectors have collapsed.

Segmentations are label maps of integers, 0 and up; in the truth, 0 is background, 1.. are objects,
and pixels of `UNKNOWN` are left out. Everything after the first axis is pooled, so "n h w" scores
images and "b t h w" videos. With N_ck the pixels of true label c in slot k, a_c and b_k its margins
and n its sum,

    ARI = (ΣN(N-1) - E) / ((Σa(a-1) + Σb(b-1)) / 2 - E),    E = Σa(a-1) Σb(b-1) / (n(n-1))
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Integer
from torch import Tensor
from torch.nn.functional import interpolate

UNKNOWN = 255
"""Label of the truth where nothing is known, as in frames without an annotation."""

Labels = Integer[Tensor, "n *p"]
Values = Float[Tensor, "n *p"]


def fg_ari(truth: Labels, predicted: Labels) -> Float64[Tensor, " n"]:
    """Adjusted Rand index over the pixels of objects only; 1 where there are none.

    A split background costs nothing here: show `mbo` and `ari` next to it.
    """
    return _adjusted_rand(overlaps(truth, predicted)[:, 1:])


def ari(truth: Labels, predicted: Labels) -> Float64[Tensor, " n"]:
    """Adjusted Rand index over all pixels, the background being one more object."""
    return _adjusted_rand(overlaps(truth, predicted))


def mbo(truth: Labels, predicted: Labels) -> Float64[Tensor, " n"]:
    """Mean over objects of the best IoU with any slot, which may be reused; NaN without objects."""
    counts = overlaps(truth, predicted)
    return _object_ious(counts).amax(dim=-1).sum(dim=-1) / _objects(counts)


def miou(truth: Labels, predicted: Labels) -> Float64[Tensor, " n"]:
    """Mean IoU of objects under the best one-to-one match with slots; unmatched ones count 0.

    NaN without objects.
    """
    counts = overlaps(truth, predicted)
    return _best_match(_object_ious(counts)) / _objects(counts)


def visible_objects(truth: Labels) -> Int64[Tensor, " n"]:
    """How many different objects each truth shows; with fewer than two, leave it out of a mean."""
    return _objects(overlaps(truth, torch.zeros_like(truth)))


def is_annotated(truth: Labels) -> Bool[Tensor, " n"]:
    """Whether anything is known of each image."""
    return (truth != UNKNOWN).flatten(1).any(dim=1)


def overlaps(truth: Labels, predicted: Labels) -> Int64[Tensor, "n c k"]:
    """Pixels of each pair of a true and a predicted label: N_ck of each image."""
    truth, predicted = truth.long().flatten(1), predicted.long().flatten(1)
    known = truth != UNKNOWN
    num_true = int(truth.where(known, 0).max()) + 1
    num_predicted = int(predicted.max()) + 1
    images = torch.arange(len(truth), device=truth.device)[:, None]
    cells = (images * num_true + truth) * num_predicted + predicted
    counts = cells[known].bincount(minlength=len(truth) * num_true * num_predicted)
    return counts.view(len(truth), num_true, num_predicted)


def alpha_labels(alphas: Float[Tensor, "n k 1 h w"]) -> Int64[Tensor, "n h w"]:
    """The slot with the largest share of each pixel."""
    return alphas.argmax(dim=1).squeeze(1)


def attention_labels(
    attention: Float[Tensor, "n k p"], *, grid: tuple[int, int], image_size: tuple[int, int]
) -> Int64[Tensor, "n h w"]:
    """The slot that each pixel counts most for, from attention over a grid of (rows, columns).

    A slot sees attention normalised over positions, so that is what is compared: otherwise a slot
    with a large share of everywhere would win every pixel.
    """
    seen = attention / attention.sum(dim=-1, keepdim=True).clamp_min(1e-8)
    labels = seen.argmax(dim=1).unflatten(-1, grid)
    return interpolate(labels[:, None].double(), size=image_size, mode="nearest-exact")[:, 0].long()


def mse(images: Values, truth: Values) -> Float64[Tensor, " n"]:
    """Mean squared error of each image."""
    return (images.double() - truth.double()).square().flatten(1).mean(dim=-1)


def psnr(mse: float) -> float | None:
    """Peak signal-to-noise ratio in dB of an error of values in [0, 1]; None without an error."""
    return -10 * math.log10(mse) if mse > 0 else None


def effective_rank(vectors: Float[Tensor, "n e"]) -> float:
    """How many directions the centred vectors fill: exp of the entropy of their singular values.

    From Roy & Vetterli 2007: e if they fill all directions alike, 1 on a line, 0 if all are equal.
    """
    centred = vectors.double() - vectors.double().mean(dim=0)
    singular = torch.linalg.svdvals(centred)
    if singular.sum() == 0:
        return 0.0
    return _entropy(singular / singular.sum()).exp().item()


def slot_usage_entropy(attention: Float[Tensor, "n k p"]) -> float:
    """How evenly positions are shared among slots: 1 if alike, 0 if one slot has them all."""
    num_slots = attention.shape[1]
    if num_slots == 1:
        return 1.0
    usage = attention.double().mean(dim=(0, 2))
    return (_entropy(usage / usage.sum()) / math.log(num_slots)).item()


def _adjusted_rand(counts: Int64[Tensor, "n c k"]) -> Float64[Tensor, " n"]:
    cells = counts.double()
    total = _ordered_pairs(cells.sum(dim=(1, 2)))
    same = _ordered_pairs(cells).sum(dim=(1, 2))
    same_true = _ordered_pairs(cells.sum(dim=2)).sum(dim=1)
    same_predicted = _ordered_pairs(cells.sum(dim=1)).sum(dim=1)
    expected = same_true * (same_predicted / total.clamp_min(1))  # exact if either is total or 0
    possible = (same_true + same_predicted) / 2 - expected
    return torch.where(possible == 0, 1.0, (same - expected) / possible)


def _ordered_pairs(counts: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    return counts * (counts - 1)


def _objects(counts: Int64[Tensor, "n c k"]) -> Int64[Tensor, " n"]:
    return (counts[:, 1:].sum(dim=-1) > 0).sum(dim=-1)


def _object_ious(counts: Int64[Tensor, "n c k"]) -> Float64[Tensor, "n c-1 k"]:
    union = counts.sum(dim=2, keepdim=True) + counts.sum(dim=1, keepdim=True) - counts
    return counts[:, 1:].double() / union[:, 1:].clamp_min(1)


def _best_match(scores: Float64[Tensor, "n r c"]) -> Float64[Tensor, " n"]:
    """The largest sum of scores, none negative, using every row and column at most once."""
    if scores.shape[1] > scores.shape[2]:
        scores = scores.transpose(1, 2)
    return scores.new_tensor([_largest_sum(image) for image in scores.cpu().numpy()])


def _largest_sum(scores: Float64[np.ndarray, "r c"]) -> float:
    """The largest sum of one score from each row, in different columns, r <= c; in O(r^2 c).

    The Hungarian method: rows come in one by one, each along the shortest augmenting path, whose
    lengths are costs (-scores) less the potentials of rows and columns. Column 0 is a dummy that
    holds the row to be placed, and row 0 stands for none.
    """
    rows, columns = scores.shape
    of_rows, of_columns = np.zeros(rows + 1), np.zeros(columns + 1)
    row_in = np.zeros(columns + 1, dtype=int)
    for row in range(1, rows + 1):
        row_in[0], here = row, 0
        distance = np.full(columns + 1, np.inf)
        came_from = np.zeros(columns + 1, dtype=int)
        reached = np.zeros(columns + 1, dtype=bool)
        while row_in[here]:
            reached[here] = True
            step = -scores[row_in[here] - 1] - of_rows[row_in[here]] - of_columns[1:]
            nearer = ~reached[1:] & (step < distance[1:])
            distance[1:][nearer], came_from[1:][nearer] = step[nearer], here
            following = int(np.where(reached, np.inf, distance).argmin())
            least = distance[following]
            of_rows[row_in[reached]] += least
            of_columns[reached] -= least
            distance[~reached] -= least
            here = following
        while here:
            row_in[here], here = row_in[came_from[here]], came_from[here]
    placed = row_in[1:] > 0
    return float(scores[row_in[1:][placed] - 1, np.flatnonzero(placed)].sum())


def _entropy(shares: Float64[Tensor, " n"]) -> Float64[Tensor, ""]:
    return torch.special.entr(shares).sum()
