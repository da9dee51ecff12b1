"""GridWorld: one-cell objects that step over a small grid, through each other (Löwe et al. 2020).

An object moves along its row or its column, one cell per frame, and turns round at the border. Its
place is a triangle wave of time, so that any frame can be drawn without those before it, and left
alone it repeats after 2 (cells - 1) frames; hence episodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from ingest.frame import Frames
from ingest.scenes.base import (
    SceneConfig,
    block_indices,
    check_episode,
    episode_starts,
    presentation_times,
    saturated_colours,
    triangle_wave,
)
from setcon.checks import check_at_least, check_within


@dataclass(frozen=True, kw_only=True)
class GridworldConfig(SceneConfig):
    """Objects on a grid, black elsewhere."""

    cells: int = 5
    """Height and width of the grid in cells."""
    num_objects: int = 3
    """Number of objects. In a shared cell the one with the higher label is seen."""
    cell_pixels: int = 16
    """Side of a cell in the video. At 16 a cell is one macroblock and keeps its colour exactly;
    ingest with the number of cells as size to get one pixel per object back."""
    episode_frames: int | None = 8
    """Frames after which new places, directions and hues are drawn. None never does."""

    def __post_init__(self) -> None:
        SceneConfig.__post_init__(self)
        check_at_least(2, cells=self.cells)
        check_within(1, 255, num_objects=self.num_objects)
        if self.num_objects > (places := self.cells**2):
            raise ValueError(
                f"num_objects must fit the {places} cells of the grid, got {self.num_objects}"
            )
        check_at_least(4, cell_pixels=self.cell_pixels)
        if self.size < 16:
            raise ValueError(f"cells * cell_pixels must be at least 16, got {self.size}")
        check_episode(self.episode_frames)

    @property
    def size(self) -> int:
        """Height and width of the frames in pixels."""
        return self.cells * self.cell_pixels


def gridworld_blocks(config: GridworldConfig) -> Iterator[Frames]:
    """Draw the recording block by block. The cell of object k carries label k + 1."""
    for indices in block_indices(config, size=config.size):
        cells, colours = _objects(config, indices)
        images, masks = _draw_cells(cells, colours, side=config.cells)
        yield Frames(
            images=_enlarge(images, config.cell_pixels),
            pts_ns=presentation_times(config, indices),
            gap=episode_starts(indices, config.episode_frames),
            captured_ns=None,
            masks=_enlarge(masks, config.cell_pixels),
        )


def _objects(
    config: GridworldConfig, indices: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, "n k 2"], UInt8[np.ndarray, "n k 3"]]:
    """Cell (column, row) and colour of every object in each of the frames."""
    episodes, frames = np.divmod(indices, config.episode_frames or config.num_frames)
    numbers, which = np.unique(episodes, return_inverse=True)
    drawn = [_Episode.drawn(config, int(number)) for number in numbers]
    starts = np.stack([episode.start for episode in drawn])[which]
    steps = np.stack([episode.step for episode in drawn])[which]
    colours = np.stack([episode.colours for episode in drawn])[which]
    return triangle_wave(starts + steps * frames[:, None, None], config.cells - 1), colours


@dataclass(frozen=True, slots=True, eq=False)
class _Episode:
    start: Int64[np.ndarray, "k 2"]
    step: Int64[np.ndarray, "k 2"]
    colours: UInt8[np.ndarray, "k 3"]

    @classmethod
    def drawn(cls, config: GridworldConfig, number: int) -> "_Episode":
        rng = np.random.default_rng([config.seed, number])
        flat = rng.choice(config.cells**2, size=config.num_objects, replace=False)
        directions = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        hues = rng.random() + np.arange(config.num_objects) / config.num_objects
        return cls(
            start=np.stack(np.divmod(flat, config.cells), axis=1),
            step=rng.choice(directions, size=config.num_objects),
            colours=np.rint(255 * saturated_colours(hues)).astype(np.uint8),
        )


def _draw_cells(
    cells: Int64[np.ndarray, "n k 2"], colours: UInt8[np.ndarray, "n k 3"], *, side: int
) -> tuple[UInt8[np.ndarray, "n side side 3"], UInt8[np.ndarray, "n side side"]]:
    images = np.zeros((len(cells), side, side, 3), dtype=np.uint8)
    masks = np.zeros((len(cells), side, side), dtype=np.uint8)
    every_frame = np.arange(len(cells))
    for k in range(cells.shape[1]):
        column, row = cells[:, k].T
        images[every_frame, row, column] = colours[:, k]
        masks[every_frame, row, column] = k + 1
    return images, masks


def _enlarge(
    grids: UInt8[np.ndarray, "n side side *c"], factor: int
) -> UInt8[np.ndarray, "n h w *c"]:
    return grids.repeat(factor, axis=1).repeat(factor, axis=2)
