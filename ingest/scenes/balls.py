"""Bouncing Balls: equal discs that bounce off each other and the walls (Löwe et al. 2020).

The balls move from collision to collision rather than by time steps. The time to the next one is

    wall:  distance to the wall / speed towards it
    pair:  c / (sqrt(b² - a c) - b)    with a = |dv|², b = dx · dv, c = |dx|² - (2 radius)²

so energy is conserved and no two balls overlap, to rounding error, at any speed and length. The
paper does not state frame size, radius and speed; here they are fields.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf, pi

import numpy as np
from jaxtyping import Float, UInt8

from ingest.frame import Frames
from ingest.scenes.base import (
    SceneConfig,
    block_indices,
    check_episode,
    episode_starts,
    presentation_times,
    saturated_colours,
)
from setcon.checks import check_above, check_at_least, check_within

_GRAZING = 1e-8  # a slower approach is the rounding error of a collision just resolved
DECIMALS = 9
"""Decimals of places and speeds: processors differ in the last bit of a cosine or a sum,
and balls that bounce off each other would make another recording of it."""


@dataclass(frozen=True, kw_only=True)
class BallsConfig(SceneConfig):
    """Bouncing balls on black. Lengths are shares of the frame's side, speeds sides per frame."""

    size: int = 64
    """Height and width of the frames in pixels."""
    num_balls: int = 3
    """Number of balls, all of one radius and one mass."""
    radius: float = 0.12
    """Radius of every ball."""
    speed: float = 0.03
    """Speed of every ball at the start. Collisions share it out; its mean square stays."""
    hue: float | None = None
    """Hue of the first ball in 0..1, the others equally spaced after it. None draws it once."""
    episode_frames: int | None = None
    """Frames after which the balls start from new places (12 in the paper). None never does."""

    def __post_init__(self) -> None:
        SceneConfig.__post_init__(self)
        check_at_least(16, size=self.size)
        check_within(1, 255, num_balls=self.num_balls)
        check_above(0, radius=self.radius)
        if (filled := self.num_balls * pi * self.radius**2) > 0.25:
            raise ValueError(
                f"num_balls of this radius must fill at most 0.25 of the frame, got {filled:.2f}"
            )
        check_within(0, 1, speed=self.speed)
        if self.hue is not None:
            check_within(0, 1, hue=self.hue)
        check_episode(self.episode_frames)


def ball_blocks(config: BallsConfig) -> Iterator[Frames]:
    """Draw the recording block by block. The pixels of ball k carry label k + 1."""
    colours = ball_colours(config)
    trajectory = ball_trajectory(config)
    for indices in block_indices(config, size=config.size):
        centres = np.stack(list(islice(trajectory, len(indices))))
        images, masks = draw_discs(centres, colours, config=config)
        yield Frames(
            images=images,
            pts_ns=presentation_times(config, indices),
            gap=episode_starts(indices, config.episode_frames),
            captured_ns=None,
            masks=masks,
        )


def ball_colours(config: BallsConfig) -> Float[np.ndarray, "k 3"]:
    """RGB in 0..1 of each ball: hues equally spaced, one draw for the whole recording."""
    hue = np.random.default_rng([config.seed, 0]).random() if config.hue is None else config.hue
    return saturated_colours(hue + np.arange(config.num_balls) / config.num_balls)


def ball_trajectory(config: BallsConfig) -> Iterator[Float[np.ndarray, "k 2"]]:
    """Yield the centres (x, y) of all balls in every frame, as shares of the side."""
    return (table.centres.copy() for table in ball_tables(config))


def ball_tables(config: BallsConfig) -> Iterator["BallTable"]:
    """Yield the table at every frame; it moves on for the next."""
    episode_frames = config.episode_frames or config.num_frames
    for start in range(0, config.num_frames, episode_frames):
        table = BallTable.drawn(config, np.random.default_rng([config.seed, 1, start]))
        for _ in range(start, min(start + episode_frames, config.num_frames)):
            yield table
            table.advance(1.0)


class BallTable:
    """Discs of equal mass in the unit square, without friction."""

    def __init__(
        self,
        centres: Float[np.ndarray, "k 2"],
        velocities: Float[np.ndarray, "k 2"],
        *,
        radius: float,
    ) -> None:
        self.centres = centres.round(DECIMALS)
        self.velocities = velocities.round(DECIMALS)
        self.radius = radius
        self._first, self._second = np.triu_indices(len(centres), k=1)
        self._find_collision()

    @classmethod
    def drawn(cls, config: BallsConfig, rng: np.random.Generator) -> "BallTable":
        """Put the balls in random places, apart from each other, moving in random directions."""
        centres = _scatter(config.num_balls, radius=config.radius, rng=rng)
        angles = rng.uniform(0, 2 * pi, config.num_balls)
        velocities = config.speed * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return cls(centres, velocities, radius=config.radius)

    def advance(self, duration: float) -> None:
        """Move all balls on by `duration` frames, through however many collisions."""
        while self._wait <= duration:
            duration -= self._wait
            self.centres += self._wait * self.velocities
            self._collide()
            self.centres = self.centres.round(DECIMALS)
            self.velocities = self.velocities.round(DECIMALS)
            self._find_collision()
        self.centres += duration * self.velocities
        self.centres = self.centres.round(DECIMALS)
        self._wait -= duration

    def _find_collision(self) -> None:
        """Set `_wait`, how long until the next collision, and `_next`, which: walls, then pairs."""
        waits = np.concatenate([self._wall_waits().ravel(), self._pair_waits()])
        self._next = int(waits.argmin())
        self._wait = float(waits[self._next])

    def _wall_waits(self) -> Float[np.ndarray, "k 2"]:
        wall = np.where(self.velocities > 0, 1 - self.radius, self.radius)
        waits = np.full_like(self.velocities, inf)
        np.divide(wall - self.centres, self.velocities, out=waits, where=self.velocities != 0)
        return np.maximum(waits, 0)

    def _pair_waits(self) -> Float[np.ndarray, " pairs"]:
        offset = self.centres[self._second] - self.centres[self._first]
        closing = self.velocities[self._second] - self.velocities[self._first]
        a = (closing**2).sum(axis=1)
        b = (offset * closing).sum(axis=1)
        c = np.maximum((offset**2).sum(axis=1) - (2 * self.radius) ** 2, 0)
        discriminant = b**2 - a * c
        meets = (b < -_GRAZING) & (discriminant > 0)
        waits = np.full_like(c, inf)
        return np.divide(c, np.sqrt(np.maximum(discriminant, 0)) - b, out=waits, where=meets)

    def _collide(self) -> None:
        """Reflect a ball at its wall, or swap the speeds of a pair along the line between them."""
        if self._next < self.velocities.size:
            ball, axis = divmod(self._next, 2)
            self.velocities[ball, axis] *= -1
            return
        pair = self._next - self.velocities.size
        first, second = self._first[pair], self._second[pair]
        offset = self.centres[second] - self.centres[first]
        normal = offset / np.hypot(*offset)
        swapped = ((self.velocities[second] - self.velocities[first]) @ normal) * normal
        self.velocities[first] += swapped
        self.velocities[second] -= swapped


def _scatter(count: int, *, radius: float, rng: np.random.Generator) -> Float[np.ndarray, "k 2"]:
    """Draw centres one after the other, each where it touches none; start over when it is stuck."""
    while True:
        centres = np.empty((0, 2))
        for _ in range(100 * count):
            candidate = rng.uniform(radius, 1 - radius, size=2)
            if (np.hypot(*(centres - candidate).T) > 2 * radius).all():
                centres = np.vstack([centres, candidate])
            if len(centres) == count:
                return centres


def draw_discs(
    centres: Float[np.ndarray, "n k 2"], colours: Float[np.ndarray, "k 3"], *, config: BallsConfig
) -> tuple[UInt8[np.ndarray, "n h w 3"], UInt8[np.ndarray, "n h w"]]:
    """Anti-aliased discs on black, and the label of the disc that covers half a pixel or more."""
    size, radius = config.size, config.radius * config.size
    pixels = np.arange(size, dtype=np.float32) + 0.5
    away = (pixels - (centres * size).astype(np.float32)[..., None]) ** 2  # n k 2 size
    coverage = np.empty((len(colours), len(centres), size, size), dtype=np.float32)
    masks = np.zeros(coverage.shape[1:], dtype=np.uint8)
    for k, covered in enumerate(coverage):
        np.sqrt(away[:, k, 1, :, None] + away[:, k, 0, None, :], out=covered)
        np.clip(radius + 0.5 - covered, 0, 1, out=covered)
        np.copyto(masks, k + 1, where=covered >= 0.5)
    # touching discs share a pixel but never more than all of it, so the sum needs no occlusion
    levels = coverage.reshape(len(colours), -1).T @ (255 * colours).astype(np.float32)
    images = np.rint(levels).clip(0, 255).astype(np.uint8)
    return images.reshape(*masks.shape, 3), masks
