"""Supervoxels of the foreground put together into objects, for as long as two are alike enough.

    score(i, j) = - a log(colour distance) - b log(how much their distance in space varies)
                  + c share of the smaller one's border - d log(distance in space) + e

Two pieces of one object share much of their border, look alike, are near, and keep their distance
while they move, also where the object turns. The pair with the highest score is merged first; none
is below 0. The five weights were fitted, by logistic regression, to the masks of 20 sequences of
the scene `tumble` and 14 of `seven-object`, on all pairs that come up while pieces are merged; they
do as well on other scenes.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from setcon.supervoxels.supervoxels import CELL, Supervoxels

LONG_RUN = 12
"""Frames from which on it counts how the distance between two pieces varies."""
_LONG = np.array([-1.1, -0.4, 2.6, -3.9, 5.1])
_SHORT = np.array([-1.3, -0.6, 2.8, -4.7, 6.0])
_ROWS = 32.0  # places are in units of a grid of this side
_LEAST_CELLS = 4.0  # per frame
_SIDE_PENALTY = 0.005  # squared colour distance that a cell to the side must make up for


def group(
    pieces: Supervoxels, foreground: Float64[Tensor, " m"], *, threshold: float, most: int
) -> Int64[Tensor, " m"]:
    """The object of each supervoxel: 1..`most`, the largest first, or 0 for the background.

    `foreground` is how likely each one belongs to an object; `threshold` is from where on it does.
    """
    objects = torch.zeros(len(pieces), dtype=torch.int64)
    chosen = torch.nonzero(foreground > threshold).flatten().tolist()
    groups = _Merging(pieces, chosen).run()
    t = pieces.area.shape[1]
    sized = [(pieces.area[members].sum(), members) for members in groups]
    large = [each for each in sized if each[0] >= _LEAST_CELLS * t]
    large.sort(key=lambda each: (-each[0], each[1]))
    for number, (_, members) in enumerate(large[:most], start=1):
        objects[members] = number
    return objects


def segments(
    frames: UInt8[Tensor, "t h w 3"], labels: Int64[Tensor, "t r c"], objects: Int64[Tensor, " m"]
) -> Int64[Tensor, "t h w"]:
    """The object of each pixel: that of the supervoxel around it whose colour is nearest.

    `labels` are the supervoxels of these frames' cells; `objects[i]` is the object of supervoxel i.

    The choice is among the supervoxels of the 3x3 cells around the pixel, by their mean colours in
    this frame; another cell's must be nearer by some, as in SLIC (Achanta et al. 2012).
    """
    t, height, width, _ = frames.shape
    own = labels.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)
    own = own[:, :height, :width]
    images = frames.float() / 255
    mean = _mean_colours(images, own, len(objects))
    around = F.pad(own[:, None].float(), (CELL, CELL, CELL, CELL), mode="replicate")[:, 0].long()
    frame = torch.arange(t)[:, None, None]
    nearest, chosen = torch.full(own.shape, torch.inf), own
    for down in (0, -CELL, CELL):
        for right in (0, -CELL, CELL):
            rows = slice(CELL + down, CELL + down + height)
            candidate = around[:, rows, CELL + right : CELL + right + width]
            distance = (mean[frame, candidate] - images).square().sum(dim=-1)
            distance += _SIDE_PENALTY * ((down != 0) + (right != 0))
            nearer = distance < nearest
            nearest = torch.where(nearer, distance, nearest)
            chosen = torch.where(nearer, candidate, chosen)
    return objects[chosen]


class _Merging:
    """Groups of supervoxels that are being merged."""

    def __init__(self, pieces: Supervoxels, chosen: Sequence[int]) -> None:
        self.area = pieces.area.copy()
        self.places = pieces.places.copy()
        self.colour = pieces.colour.copy()
        self.border = pieces.border.copy()
        self.unit = _ROWS / max(pieces.labels.shape[1:])
        self.weights = _LONG if pieces.area.shape[1] >= LONG_RUN else _SHORT
        self.members = {i: [i] for i in chosen}
        self._versions = dict.fromkeys(chosen, 0)
        """How often each group has taken in another: scores of older versions are stale."""
        self._queue: list[tuple[float, int, int, int, int]] = []

    def run(self) -> list[list[int]]:
        """Merge until no pair has a score of 0 or more."""
        groups = np.array(list(self.members), np.int64)
        low, high = np.nonzero(np.triu(self.border[np.ix_(groups, groups)], k=1))
        self._enqueue(groups[low], groups[high])
        while self._queue:
            _, i, j, *versions = heappop(self._queue)
            i, j = -i, -j
            if versions == [self._versions.get(i), self._versions.get(j)]:
                self._merge(i, j)
                others = self._neighbours(i)
                self._enqueue(np.minimum(i, others), np.maximum(i, others))
        return [sorted(members) for members in self.members.values()]

    def _neighbours(self, i: int) -> Int64[np.ndarray, " n"]:
        others = np.flatnonzero(self.border[i])
        return others[[j in self.members for j in others.tolist()]]

    def _enqueue(self, low: Int64[np.ndarray, " n"], high: Int64[np.ndarray, " n"]) -> None:
        """Score pairs of groups; the highest score comes first, of equal ones the last pair."""
        scores = self._scores(low, high)
        for score, i, j in zip(scores.tolist(), low.tolist(), high.tolist(), strict=True):
            if score >= 0:
                heappush(self._queue, (-score, -i, -j, self._versions[i], self._versions[j]))

    def _scores(
        self, i: Int64[np.ndarray, " n"], j: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """Of all pairs at once, as the calls take the time; -inf where no frame shows both."""
        both = (self.area[i] > 0) & (self.area[j] > 0)
        apart = self._centres(i) - self._centres(j)
        distance = self.unit * np.hypot(apart[..., 0], apart[..., 1])
        farthest = distance.max(axis=1, initial=0, where=both)
        nearest = distance.min(axis=1, initial=np.inf, where=both)
        usual = distance.sum(axis=1, where=both) / both.sum(axis=1).clip(1)
        colour = np.linalg.norm(self._colours(i) - self._colours(j), axis=1)
        smaller = np.minimum(self.border[i].sum(axis=1), self.border[j].sum(axis=1))
        seen = both.any(axis=1)
        cues = [
            np.log(colour + 0.05),
            np.log(np.where(seen, farthest - nearest, 0) + 0.5),
            self.border[i, j] / smaller,
            np.log(usual + 0.5),
            np.ones(len(i)),
        ]
        return np.where(seen, self.weights @ np.stack(cues), -np.inf)

    def _merge(self, i: int, j: int) -> None:
        """Put j into i."""
        self.area[i] += self.area[j]
        self.places[i] += self.places[j]
        self.colour[i] += self.colour[j]
        self.border[i] += self.border[j]
        self.border[:, i] += self.border[:, j]
        self.border[j] = self.border[:, j] = 0
        self.border[i, i] = 0
        self.members[i] += self.members.pop(j)
        self._versions[i] += 1
        del self._versions[j]

    def _centres(self, i: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n t 2"]:
        """In each frame; of no meaning in those that do not show a group."""
        return self.places[i] / self.area[i].clip(1)[..., None]

    def _colours(self, i: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 3"]:
        return self.colour[i] / self.area[i].sum(axis=1)[:, None]


def _mean_colours(
    images: Float[Tensor, "t h w 3"], labels: Int64[Tensor, "t h w"], count: int
) -> Float[Tensor, "t {count} 3"]:
    """Of each supervoxel in each frame; those that are not in it are black."""
    t = len(images)
    keys = (labels + count * torch.arange(t)[:, None, None]).flatten()
    pixels = torch.bincount(keys, minlength=t * count).clamp_min(1)
    sums = [torch.bincount(keys, c.flatten(), t * count) for c in images.unbind(dim=-1)]
    return (torch.stack(sums, dim=1) / pixels[:, None]).view(t, count, 3)
