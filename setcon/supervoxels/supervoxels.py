"""A run of frames cut into supervoxels: pieces of similar colour, through space and time.

Cells of a few pixels are clustered by colour and place (Ward, among neighbours within a frame and
from each frame to the next), so that a supervoxel is a piece of an object which is followed for as
long as it is seen. Supervoxels are the unit in which evidence is gathered: a cell alone hardly
shows that it moves, a piece that is followed for seconds does. They depend on the frames alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from setcon.cells import cell_places, neighbouring_cells
from setcon.supervoxels.evidence import motion_evidence
from setcon.ward import merge_tree

CELL = 4
"""Side of a cell in pixels, which is also the stride of the encoder that goes with supervoxels."""
_COLOUR, _PLACE = 3.0, 2.0  # weights of colours in 0..1, and of places in units of the longer side
_REGION, _SUPERVOXEL = 1.0, 0.12  # limits of the error within, where the grid has _CELLS cells
_CELLS = 1024
_MOST_SUPERVOXELS = 320  # but no fewer than regions: they are put together pair by pair


@dataclass(frozen=True, slots=True, eq=False)
class Supervoxels:
    """m supervoxels of one run of frames."""

    labels: Int64[Tensor, "t r c"]
    """The supervoxel of each cell, 0..m-1."""
    regions: Int64[Tensor, " m"]
    """The region of each supervoxel, 0.. on; the parts of one are alike and touch."""
    evidence: Float64[Tensor, " m"]
    """Mean of the evidence that its region moves over the region's cells, in frames that are
    compared with others; see `motion_evidence`."""
    area: Float64[np.ndarray, "m t"]
    """Cells in each frame."""
    places: Float64[np.ndarray, "m t 2"]
    """Sums over these cells of their row and column."""
    colour: Float64[np.ndarray, "m 3"]
    """Sum over all its cells of their colour in 0..1."""
    border: Float64[np.ndarray, "m m"]
    """Sides of cells that two supervoxels share within frames, over all frames."""

    def __len__(self) -> int:
        return len(self.regions)

    @classmethod
    def of(
        cls,
        frames: UInt8[Tensor, "t h w 3"],
        *,
        distance: int | None = 1,
        filled_from: int | None = None,
    ) -> "Supervoxels":
        """Cut a run of frames; `distance` is that of `motion_evidence`.

        Evidence takes more than half of the time, and only what learns the foreground reads it:
        with a distance of None it is not looked for, and 0.

        From frame `filled_from` on, if it is given, the run is only filled up: nothing moves there.
        """
        images = _filled_up(frames.float().movedim(-1, 1))
        colours = F.avg_pool2d(images, CELL) / 255
        labels, regions = _clustered(colours)
        count = len(regions)
        border = _border(labels, count)
        area, places = _moments(labels, count)
        sums = [_sums(labels, channel, count) for channel in colours.unbind(dim=1)]
        evidence = torch.zeros(count, dtype=torch.float64)
        if distance is not None:
            evidence = _evidence(regions[labels], images[:filled_from], distance)[regions]
        return cls(
            labels=labels,
            regions=regions,
            evidence=evidence,
            area=area,
            places=places,
            colour=torch.stack(sums, dim=1).numpy(),
            border=border,
        )

    def mean(self, values: Float[Tensor, "t r c"]) -> Float64[Tensor, " m"]:
        """Mean over the cells of each."""
        cells = torch.from_numpy(self.area.sum(axis=1))
        return _sums(self.labels, values, len(self)) / cells

    def region_mean(self, values: Float[Tensor, "t r c"]) -> Float64[Tensor, " m"]:
        """Mean over the cells of the region of each."""
        cells = torch.bincount(self.regions, torch.from_numpy(self.area.sum(axis=1)))
        sums = torch.bincount(self.regions, _sums(self.labels, values, len(self)))
        return (sums / cells)[self.regions]

    def mirrored(self) -> "Supervoxels":
        """Those of the same frames with left and right swapped."""
        places = self.places.copy()
        places[..., 1] = (self.labels.shape[2] - 1) * self.area - places[..., 1]
        return Supervoxels(
            labels=self.labels.flip(2),
            regions=self.regions,
            evidence=self.evidence,
            area=self.area,
            places=places,
            colour=self.colour,
            border=self.border,
        )


def neighbour_distance(seconds: float, *, num_frames: int) -> int:
    """How many frames apart neighbours are compared, where frames are `seconds` apart.

    About a tenth of a second, in which things that people move go a few pixels; never so far that
    less than a third of the run has neighbours on both sides.
    """
    wanted = round(0.1 / seconds) if seconds > 0 else 1
    return max(1, min(wanted, num_frames // 3))


def _filled_up(images: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 _h _w"]:
    """With the last row and column again, up to whole cells."""
    height, width = images.shape[2:]
    return F.pad(images, (0, -width % CELL, 0, -height % CELL), mode="replicate")


def _clustered(
    colours: Float[Tensor, "t 3 r c"],
) -> tuple[Int64[Tensor, "t r c"], Int64[Tensor, " m"]]:
    """The supervoxel of each cell, and the region of each supervoxel."""
    t, _, rows, columns = colours.shape
    places = cell_places(rows, columns).expand(t, -1, -1, -1)
    features = torch.cat([_COLOUR * colours.movedim(1, -1), _PLACE * places], dim=-1)
    unit = t * rows * columns / _CELLS
    tree = merge_tree(features.flatten(0, 2), _neighbours(t, rows, columns), limit=_REGION * unit)
    low = max(_SUPERVOXEL * unit, tree.height_of(_MOST_SUPERVOXELS))
    first, labels = tree.clusters(height=low).unique(return_inverse=True)
    regions = tree.clusters()[first].unique(return_inverse=True)[1]
    return labels.view(t, rows, columns), regions


def _neighbours(t: int, rows: int, columns: int) -> Int64[Tensor, "2 e"]:
    """Cells side by side, and each cell with that in its place in the next frame and the four
    next to that."""
    index = torch.arange(t * rows * columns).view(t, rows, columns)
    around = F.pad(index, (1, 1, 1, 1), value=-1)
    edges = [neighbouring_cells(t, rows, columns)]
    for row, column in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2)):
        later = around[1:, row : row + rows, column : column + columns]
        onwards = torch.stack([index[:-1].flatten(), later.flatten()])
        edges.append(onwards[:, onwards[1] >= 0])
    return torch.cat(edges, dim=1)


def _sums(
    labels: Int64[Tensor, "t r c"], values: Float[Tensor, "t r c"], count: int
) -> Float64[Tensor, " m"]:
    return torch.bincount(labels.flatten(), values.flatten().double(), count)


def _moments(
    labels: Int64[Tensor, "t r c"], count: int
) -> tuple[Float64[np.ndarray, "m t"], Float64[np.ndarray, "m t 2"]]:
    """Cells of each supervoxel in each frame, and the sums of their rows and columns."""
    t, rows, columns = labels.shape
    keys = (labels * t + torch.arange(t)[:, None, None]).flatten()
    row = torch.arange(rows)[:, None].expand(t, rows, columns)
    column = torch.arange(columns).expand(t, rows, columns)
    area, *places = (
        torch.bincount(keys, values.flatten().double(), count * t).view(count, t).numpy()
        for values in (torch.ones(t, rows, columns), row, column)
    )
    return area, np.stack(places, axis=-1)


def _evidence(
    regions: Int64[Tensor, "t r c"], images: Float[Tensor, "_t 3 h w"], distance: int
) -> Float64[Tensor, " regions"]:
    """Mean of the evidence over the cells of each region, from the run's first frames."""
    count = int(regions.max()) + 1
    evidence, compared = torch.zeros(2, *regions.shape)
    evidence[: len(images)] = motion_evidence(images, cell=CELL, distance=distance)
    # frames at the ends have no evidence, which is no evidence of rest
    compared[distance : max(distance, len(images) - distance)] = 1
    sums, cells = (_sums(regions, values, count) for values in (evidence, compared))
    return sums / cells.clamp_min(1)


def _border(labels: Int64[Tensor, "t r c"], count: int) -> Float64[np.ndarray, "m m"]:
    border = torch.zeros(count * count, dtype=torch.float64)
    for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[:, :, 1:], labels[:, :, :-1])):
        apart: Bool[Tensor, ...] = a != b
        border += torch.bincount((a * count + b)[apart], minlength=count * count)
    square = border.view(count, count)
    return (square + square.T).numpy()
