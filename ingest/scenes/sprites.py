"""Sprites: turning, textured shapes that pass in front of each other over a drifting background.

Unlike the balls, neither a colour nor a patch of texture belongs to one object: every sprite mixes
two colours in a pattern of its own, and the background is coloured too. It is a sum of plane waves,
sin(k · (pixel - drift t) + phase), so it moves by any fraction of a pixel and never repeats at an
edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import pi

import numpy as np
from jaxtyping import Float, Float32, Int64

from ingest.frame import Frames
from ingest.scenes.base import (
    SceneConfig,
    block_indices,
    episode_starts,
    presentation_times,
    triangle_wave,
)
from ingest.scenes.shapes import (
    OUTLINES,
    Canvas,
    Patch,
    PlaneWaves,
    Shape,
    TexturedShape,
    directions,
)
from setcon.checks import check_above, check_at_least, check_below, check_within

MAX_SPRITES = 5

_NUM_WAVES = 8
_MARGIN = 2  # pixels by which a sprite's window may reach over the frame's edge


@dataclass(frozen=True, kw_only=True)
class SpritesConfig(SceneConfig):
    """Textured sprites. Lengths are shares of the frame's side, speeds sides per frame."""

    size: int = 64
    """Height and width of the frames in pixels."""
    num_sprites: int = 4
    """Number of sprites, 1..5, each of another shape; the one with the higher label is in front."""
    min_radius: float = 0.12
    """Smallest radius of a sprite's circumscribed circle."""
    max_radius: float = 0.2
    """Largest radius of a sprite's circumscribed circle."""
    speed: float = 0.015
    """Speed of every sprite. Each bounces off the walls as if alone."""
    spin: float = 0.05
    """Fastest turn of a sprite, radians per frame, either way."""
    same_colours: bool = False
    """Give all sprites the two colours of the first, so that only shape and pattern tell them
    apart."""
    background_speed: float = 0.005
    """Speed at which the background drifts."""

    def __post_init__(self) -> None:
        SceneConfig.__post_init__(self)
        check_at_least(16, size=self.size)
        check_within(1, MAX_SPRITES, num_sprites=self.num_sprites)
        check_above(0, min_radius=self.min_radius)
        check_at_least(self.min_radius, max_radius=self.max_radius)
        check_below(0.5, max_radius=self.max_radius)
        check_at_least(0, speed=self.speed, spin=self.spin, background_speed=self.background_speed)


def sprite_blocks(config: SpritesConfig) -> Iterator[Frames]:
    """Draw the recording block by block. The visible pixels of sprite k carry label k + 1."""
    rng = np.random.default_rng(config.seed)
    background = _Background.drawn(config, rng)
    shapes = rng.permutation(MAX_SPRITES)[: config.num_sprites]
    sprites = [_Sprite.drawn(config, rng, OUTLINES[shape]) for shape in shapes]
    if config.same_colours:
        colours = sprites[0].shape.colours
        sprites = [replace(each, shape=replace(each.shape, colours=colours)) for each in sprites]
    for indices in block_indices(config, size=config.size):
        canvas = Canvas(background.colours(indices, size=config.size), margin=_MARGIN)
        for k, sprite in enumerate(sprites):
            canvas.paint(sprite.render(indices, size=config.size), k + 1)
        images, masks = canvas.frames()
        yield Frames(
            images=images,
            pts_ns=presentation_times(config, indices),
            gap=episode_starts(indices, None),
            captured_ns=None,
            masks=masks,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Background:
    """A texture that drifts, in sides per frame."""

    texture: PlaneWaves
    drift: Float[np.ndarray, " 2"]

    @classmethod
    def drawn(cls, config: SpritesConfig, rng: np.random.Generator) -> "_Background":
        texture = PlaneWaves.drawn(rng, _NUM_WAVES, rates=(4.0, 25.0), mean=(0.25, 0.45))
        return cls(texture, config.background_speed * directions(rng, 1)[0])

    def colours(
        self, indices: Int64[np.ndarray, " n"], *, size: int
    ) -> Float32[np.ndarray, "n size size 3"]:
        """RGB by sin(a + b) = sin a cos b + cos a sin b, with a of rows and b of columns."""
        of = self.texture
        pixels = (np.arange(size) + 0.5) / size
        moved = of.phases - np.outer(indices, of.waves @ self.drift)
        a = moved[:, None, :] + np.outer(pixels, of.waves[:, 1])
        b = np.outer(of.waves[:, 0], pixels)[..., None]
        of_rows = np.concatenate([np.sin(a), np.cos(a)], axis=-1).astype(np.float32)
        tints = of.tints[:, None, :]
        of_columns = np.concatenate([np.cos(b) * tints, np.sin(b) * tints]).astype(np.float32)
        swing = of_rows.reshape(-1, 2 * _NUM_WAVES) @ of_columns.reshape(2 * _NUM_WAVES, -1)
        return of.mean.astype(np.float32) + swing.reshape(len(indices), size, size, 3)


@dataclass(frozen=True, slots=True, eq=False)
class _Sprite:
    """One shape and its path; lengths in sides, angles in radians, times in frames."""

    shape: TexturedShape
    radius: float
    start: Float[np.ndarray, " 2"]
    velocity: Float[np.ndarray, " 2"]
    angle: float
    spin: float

    @classmethod
    def drawn(cls, config: SpritesConfig, rng: np.random.Generator, outline: Shape) -> "_Sprite":
        return cls(
            shape=TexturedShape.drawn(rng, outline),
            radius=rng.uniform(config.min_radius, config.max_radius),
            start=rng.random(2),
            velocity=config.speed * directions(rng, 1)[0],
            angle=rng.uniform(0, 2 * pi),
            spin=config.spin * rng.uniform(0.3, 1) * rng.choice([-1, 1]),
        )

    def centres(self, indices: Int64[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
        """Centre (x, y) in every frame, never nearer to a wall than the radius."""
        travelled = self.start + indices[:, None] * self.velocity
        return self.radius + triangle_wave(travelled, 1 - 2 * self.radius)

    def render(self, indices: Int64[np.ndarray, " n"], *, size: int) -> Patch:
        """Draw the sprite in frames of `size` pixels a side."""
        return self.shape.render(
            self.centres(indices) * size,
            self.angle + self.spin * indices,
            np.full(len(indices), self.radius * size),
        )
