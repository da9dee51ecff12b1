"""What every procedural scene shares: its length, clock, seed and colours.

A scene is drawn in blocks, `Frames` of a few dozen images, so that numpy works on many frames at
once while memory does not grow with the recording. What a frame shows depends on the configuration
and its index alone, never on how the recording is cut into blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Num

from setcon.checks import check_at_least, check_within

_BLOCK_PIXELS = 1 << 18  # what a block's float32 planes take, 1 MiB, stays in the cache


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Length, clock and seed of a procedural recording."""

    num_frames: int = 900
    """Frames in the recording."""
    fps: int = 30
    """Frames per second; frame i is shown at i / fps."""
    seed: int = 0
    """Decides all that is drawn at random. Equal configurations give equal recordings."""

    def __post_init__(self) -> None:
        check_at_least(1, num_frames=self.num_frames)
        check_within(1, 1000, fps=self.fps)
        check_at_least(0, seed=self.seed)


def check_episode(episode_frames: int | None) -> None:
    """Episodes are off (None) or at least one frame long."""
    if episode_frames is not None:
        check_at_least(1, episode_frames=episode_frames)


def block_indices(config: SceneConfig, *, size: int) -> Iterator[Int64[np.ndarray, " n"]]:
    """Yield the frame indices of each block in turn, for square frames of `size` pixels a side."""
    length = max(1, _BLOCK_PIXELS // size**2)
    for start in range(0, config.num_frames, length):
        yield np.arange(start, min(start + length, config.num_frames), dtype=np.int64)


def presentation_times(
    config: SceneConfig, indices: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Time of each frame in nanoseconds, rounded down from i / fps."""
    seconds, rest = np.divmod(indices, config.fps)
    return seconds * 1_000_000_000 + rest * 1_000_000_000 // config.fps


def episode_starts(
    indices: Int64[np.ndarray, " n"], episode_frames: int | None
) -> Bool[np.ndarray, " n"]:
    """Mark the frames that do not continue their predecessor: the first, or each episode's."""
    return indices == 0 if episode_frames is None else indices % episode_frames == 0


def saturated_colours(hues: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3"]:
    """RGB in 0..1 of fully saturated, fully bright colours; hue 0 is red, 1/3 green, 2/3 blue."""
    sector = (6 * hues[..., None] + np.array([0.0, 4.0, 2.0])) % 6
    return np.clip(np.abs(sector - 3) - 1, 0, 1)


def triangle_wave(distance: Num[np.ndarray, "*n"], span: int | float) -> Num[np.ndarray, "*n"]:
    """Fold a distance travelled into 0..span, as if it bounced between two walls."""
    return span - np.abs(distance % (2 * span) - span)
