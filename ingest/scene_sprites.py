"""Sprites: turning, textured shapes that pass in front of each other over a drifting background.

Unlike the balls, neither a colour nor a patch of texture belongs to one object: every sprite mixes
two colours in a pattern of its own, and the background is coloured too. A sprite is an outline,
negative inside, given in its own turning coordinates, where its circumscribed circle has radius 1:

    covered = clip(1/2 - outline(R(-angle) (pixel - centre) / radius) * radius, 0, 1)

The background is a sum of plane waves, sin(k · (pixel - drift t) + phase), so it moves by any
fraction of a pixel and never repeats at an edge.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, pi, sqrt

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from ingest.frame import Frames
from ingest.scene_config import (
    SceneConfig,
    block_indices,
    episode_starts,
    presentation_times,
    require,
    saturated_colours,
    triangle_wave,
)

Plane = Float32[np.ndarray, "n y x"]
Shape = Callable[[Plane, Plane], Plane]

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
    background_speed: float = 0.005
    """Speed at which the background drifts."""

    def __post_init__(self) -> None:
        SceneConfig.__post_init__(self)
        require(self.size >= 16, "size must be at least 16", self.size)
        require(1 <= self.num_sprites <= 5, "num_sprites must be in 1..5", self.num_sprites)
        require(self.min_radius > 0, "min_radius must be positive", self.min_radius)
        require(
            self.min_radius <= self.max_radius < 0.5,
            "max_radius must be in min_radius..0.5",
            self.max_radius,
        )
        for name in ("speed", "spin", "background_speed"):
            require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))


def sprite_blocks(config: SpritesConfig) -> Iterator[Frames]:
    """Draw the recording block by block. The visible pixels of sprite k carry label k + 1."""
    rng = np.random.default_rng(config.seed)
    background = _Background.drawn(config, rng)
    shapes = rng.permutation(len(_OUTLINES))[: config.num_sprites]
    sprites = [_Sprite.drawn(config, rng, _OUTLINES[shape]) for shape in shapes]
    for indices in block_indices(config, size=config.size):
        images, masks = _draw(background, sprites, indices, size=config.size)
        yield Frames(
            images=images,
            pts_ns=presentation_times(config, indices),
            gap=episode_starts(indices, None),
            captured_ns=None,
            masks=masks,
        )


def _draw(
    background: "_Background",
    sprites: list["_Sprite"],
    indices: Int64[np.ndarray, " n"],
    *,
    size: int,
) -> tuple[UInt8[np.ndarray, "n h w 3"], UInt8[np.ndarray, "n h w"]]:
    """Paint the background and then the sprites over it, from the back to the front."""
    inside = (slice(None), slice(_MARGIN, -_MARGIN), slice(_MARGIN, -_MARGIN))
    side = size + 2 * _MARGIN
    canvas = np.zeros((len(indices), side, side, 3), dtype=np.float32)
    labels = np.zeros(canvas.shape[:3], dtype=np.uint8)
    each_frame = np.arange(len(indices))[:, None, None]
    canvas[inside] = background.colours(indices, size=size)
    for k, sprite in enumerate(sprites):
        patch = sprite.render(indices, size=size)
        window = (each_frame, patch.rows + _MARGIN, patch.columns + _MARGIN)
        beneath = canvas[window]
        canvas[window] = beneath + patch.covered[..., None] * (patch.colours - beneath)
        labels[window] = np.where(patch.covered >= 0.5, np.uint8(k + 1), labels[window])
    return np.rint(255 * canvas[inside]).clip(0, 255).astype(np.uint8), labels[inside].copy()


@dataclass(frozen=True, slots=True, eq=False)
class _Background:
    """Plane waves with a colour each; `waves` in radians per side, `drift` in sides per frame."""

    waves: Float[np.ndarray, "waves 2"]
    phases: Float[np.ndarray, " waves"]
    tints: Float[np.ndarray, "waves 3"]
    mean: Float[np.ndarray, " 3"]
    drift: Float[np.ndarray, " 2"]

    @classmethod
    def drawn(cls, config: SpritesConfig, rng: np.random.Generator) -> "_Background":
        tints = rng.normal(size=(_NUM_WAVES, 3))
        return cls(
            waves=rng.uniform(4, 25, size=(_NUM_WAVES, 1)) * _directions(rng, _NUM_WAVES),
            phases=rng.uniform(0, 2 * pi, _NUM_WAVES),
            tints=0.25 * tints / np.abs(tints).sum(axis=0),  # swings by a quarter at most
            mean=rng.uniform(0.25, 0.45, size=3),
            drift=config.background_speed * _directions(rng, 1)[0],
        )

    def colours(
        self, indices: Int64[np.ndarray, " n"], *, size: int
    ) -> Float32[np.ndarray, "n size size 3"]:
        """RGB by sin(a + b) = sin a cos b + cos a sin b, with a of rows and b of columns."""
        pixels = (np.arange(size) + 0.5) / size
        moved = self.phases - np.outer(indices, self.waves @ self.drift)
        a = moved[:, None, :] + np.outer(pixels, self.waves[:, 1])
        b = np.outer(self.waves[:, 0], pixels)[..., None]
        of_rows = np.concatenate([np.sin(a), np.cos(a)], axis=-1).astype(np.float32)
        tints = self.tints[:, None, :]
        of_columns = np.concatenate([np.cos(b) * tints, np.sin(b) * tints]).astype(np.float32)
        swing = of_rows.reshape(-1, 2 * _NUM_WAVES) @ of_columns.reshape(2 * _NUM_WAVES, -1)
        return self.mean.astype(np.float32) + swing.reshape(len(indices), size, size, 3)


@dataclass(frozen=True, slots=True, eq=False)
class _Sprite:
    """One shape, its pattern and its path; lengths in sides, angles in radians, times in frames."""

    outline: Shape
    pattern: Shape
    pattern_scale: float
    colours: Float[np.ndarray, "2 3"]
    radius: float
    start: Float[np.ndarray, " 2"]
    velocity: Float[np.ndarray, " 2"]
    angle: float
    spin: float

    @classmethod
    def drawn(cls, config: SpritesConfig, rng: np.random.Generator, outline: Shape) -> "_Sprite":
        hue = rng.random()
        return cls(
            outline=outline,
            pattern=_PATTERNS[rng.integers(len(_PATTERNS))],
            pattern_scale=rng.uniform(5, 9),
            colours=saturated_colours(np.array([hue, hue + rng.uniform(0.2, 0.5)])),
            radius=rng.uniform(config.min_radius, config.max_radius),
            start=rng.random(2),
            velocity=config.speed * _directions(rng, 1)[0],
            angle=rng.uniform(0, 2 * pi),
            spin=config.spin * rng.uniform(0.3, 1) * rng.choice([-1, 1]),
        )

    def centres(self, indices: Int64[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
        """Centre (x, y) in every frame, never nearer to a wall than the radius."""
        travelled = self.start + indices[:, None] * self.velocity
        return self.radius + triangle_wave(travelled, 1 - 2 * self.radius)

    def render(self, indices: Int64[np.ndarray, " n"], *, size: int) -> "_Patch":
        """Draw the sprite in the square window about its centre, frame by frame."""
        radius, centres = self.radius * size, self.centres(indices) * size
        reach = ceil(radius) + 1
        pixels = np.floor(centres).astype(np.int64)[..., None] + np.arange(-reach, reach + 1)
        away = ((pixels + 0.5 - centres[..., None]) / radius).astype(np.float32)
        dx, dy = away[:, 0, None, :], away[:, 1, :, None]
        angles = (self.angle + self.spin * indices)[:, None, None]
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        share = np.clip(0.5 + self.pattern(self.pattern_scale * u, self.pattern_scale * v), 0, 1)
        first, second = self.colours.astype(np.float32)
        return _Patch(
            rows=pixels[:, 1, :, None],
            columns=pixels[:, 0, None, :],
            covered=np.clip(0.5 - radius * self.outline(u, v), 0, 1),
            colours=first + share[..., None] * (second - first),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Patch:
    """What a sprite looks like and where, one window per frame."""

    rows: Int64[np.ndarray, "n window 1"]
    columns: Int64[np.ndarray, "n 1 window"]
    covered: Float32[np.ndarray, "n window window"]
    colours: Float32[np.ndarray, "n window window 3"]


def _directions(rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 2"]:
    angles = rng.uniform(0, 2 * pi, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _disc(u: Plane, v: Plane) -> Plane:
    return np.hypot(u, v) - 1


def _square(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u), np.abs(v)) - sqrt(0.5)


def _triangle(u: Plane, v: Plane) -> Plane:
    return np.maximum(v, sqrt(0.75) * np.abs(u) - v / 2) - 0.5


def _cross(u: Plane, v: Plane) -> Plane:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.maximum(short - 0.35, long - sqrt(1 - 0.35**2))


def _ring(u: Plane, v: Plane) -> Plane:
    return np.abs(np.hypot(u, v) - 0.7) - 0.3


def _stripes(u: Plane, v: Plane) -> Plane:
    return np.sin(u)


def _checks(u: Plane, v: Plane) -> Plane:
    return 2 * np.sin(u) * np.sin(v)


def _rings(u: Plane, v: Plane) -> Plane:
    return np.sin(np.hypot(u, v))


def _ripples(u: Plane, v: Plane) -> Plane:
    return np.sin(u + np.sin(v))


_OUTLINES: tuple[Shape, ...] = (_disc, _square, _triangle, _cross, _ring)
_PATTERNS: tuple[Shape, ...] = (_stripes, _checks, _rings, _ripples)
