"""Textured shapes, and the canvas that scenes paint them on, a block of frames at a time.

A shape is an outline, negative inside, given in its own turning coordinates, where its
circumscribed circle has radius 1:

    covered = clip(1/2 - outline(R(-angle) (pixel - centre) / radius) * radius, 0, 1)

and a pattern that mixes two colours over the same coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, pi, sqrt

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from ingest.scenes.base import saturated_colours

Plane = Float32[np.ndarray, "n y x"]
Shape = Callable[[Plane, Plane], Plane]


@dataclass(frozen=True, slots=True, eq=False)
class TexturedShape:
    """An outline filled with a pattern of two colours."""

    outline: Shape
    pattern: Shape
    pattern_scale: float
    colours: Float[np.ndarray, "2 3"]

    @classmethod
    def drawn(cls, rng: np.random.Generator, outline: Shape) -> "TexturedShape":
        """A pattern and two hues, at least a fifth of the circle apart, by chance."""
        hue = rng.random()
        return cls(
            outline=outline,
            pattern=PATTERNS[rng.integers(len(PATTERNS))],
            pattern_scale=rng.uniform(5, 9),
            colours=saturated_colours(np.array([hue, hue + rng.uniform(0.2, 0.5)])),
        )

    def render(
        self,
        centres: Float[np.ndarray, "n 2"],
        angles: Float[np.ndarray, " n"],
        radii: Float[np.ndarray, " n"],
    ) -> "Patch":
        """Draw the square window about the centre (x, y) in every frame; lengths in pixels."""
        reach = ceil(radii.max()) + 1
        pixels = np.floor(centres).astype(np.int64)[..., None] + np.arange(-reach, reach + 1)
        away = ((pixels + 0.5 - centres[..., None]) / radii[:, None, None]).astype(np.float32)
        dx, dy = away[:, 0, None, :], away[:, 1, :, None]
        turned = angles[:, None, None]
        cos, sin = np.cos(turned).astype(np.float32), np.sin(turned).astype(np.float32)
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        share = np.clip(0.5 + self.pattern(self.pattern_scale * u, self.pattern_scale * v), 0, 1)
        first, second = self.colours.astype(np.float32)
        edge = radii.astype(np.float32)[:, None, None] * self.outline(u, v)
        return Patch(
            rows=pixels[:, 1, :, None],
            columns=pixels[:, 0, None, :],
            covered=np.clip(0.5 - edge, 0, 1),
            colours=first + share[..., None] * (second - first),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PlaneWaves:
    """A texture without end, in colour or in other channels: sines along `waves` (x, y), in radians
    per side."""

    waves: Float[np.ndarray, "waves 2"]
    phases: Float[np.ndarray, " waves"]
    tints: Float[np.ndarray, "waves channels"]
    mean: Float[np.ndarray, " channels"]

    @classmethod
    def drawn(
        cls,
        rng: np.random.Generator,
        count: int,
        *,
        rates: tuple[float, float],
        mean: tuple[float, float],
    ) -> "PlaneWaves":
        """Waves of rates and about a colour within these bounds, by chance."""
        tints = rng.normal(size=(count, 3))
        return cls(
            waves=rng.uniform(*rates, size=(count, 1)) * directions(rng, count),
            phases=rng.uniform(0, 2 * pi, count),
            tints=0.25 * tints / np.abs(tints).sum(axis=0),  # swings by a quarter at most
            mean=rng.uniform(*mean, size=3),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """What a shape looks like and where, one window per frame."""

    rows: Int64[np.ndarray, "n window 1"]
    columns: Int64[np.ndarray, "n 1 window"]
    covered: Float32[np.ndarray, "n window window"]
    colours: Float32[np.ndarray, "n window window 3"]


class Canvas:
    """Frames that are painted from the back to the front, and the label of what each pixel shows.

    Patches may reach over the edge by `margin` pixels; what is further out is lost.
    """

    def __init__(self, background: Float32[np.ndarray, "n size size 3"], *, margin: int) -> None:
        num_frames, size = background.shape[:2]
        side = size + 2 * margin
        inside = slice(margin, margin + size)
        self._inside = (slice(None), inside, inside)
        self._margin = margin
        self._colours = np.zeros((num_frames, side, side, 3), dtype=np.float32)
        self._labels = np.zeros(self._colours.shape[:3], dtype=np.uint8)
        self._colours[self._inside] = background

    def paint(
        self, patch: Patch, label: int, frames: Int64[np.ndarray, " m"] | None = None
    ) -> None:
        """Paint over what is there, in all frames or in some; half covered is labelled."""
        chosen = np.arange(len(self._colours)) if frames is None else frames
        last = self._colours.shape[1] - 1
        rows = (patch.rows[chosen] + self._margin).clip(0, last)
        columns = (patch.columns[chosen] + self._margin).clip(0, last)
        window = (chosen[:, None, None], rows, columns)
        covered, beneath = patch.covered[chosen], self._colours[window]
        self._colours[window] = beneath + covered[..., None] * (patch.colours[chosen] - beneath)
        self._labels[window] = np.where(covered >= 0.5, np.uint8(label), self._labels[window])

    def frames(self) -> tuple[UInt8[np.ndarray, "n size size 3"], UInt8[np.ndarray, "n size size"]]:
        """Images and label maps."""
        images = np.rint(255 * self._colours[self._inside]).clip(0, 255).astype(np.uint8)
        return images, self._labels[self._inside].copy()


def directions(rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 2"]:
    """Unit vectors, evenly over the circle."""
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


def _bar(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.abs(u) - sqrt(1 - 0.4**2), np.abs(v) - 0.4)


def _crescent(u: Plane, v: Plane) -> Plane:
    return np.maximum(np.hypot(u, v) - 1, 0.7 - np.hypot(u - 0.55, v))


def _stripes(u: Plane, v: Plane) -> Plane:
    return np.sin(u)


def _checks(u: Plane, v: Plane) -> Plane:
    return 2 * np.sin(u) * np.sin(v)


def _rings(u: Plane, v: Plane) -> Plane:
    return np.sin(np.hypot(u, v))


def _ripples(u: Plane, v: Plane) -> Plane:
    return np.sin(u + np.sin(v))


OUTLINES: tuple[Shape, ...] = (_disc, _square, _triangle, _cross, _ring, _bar, _crescent)
PATTERNS: tuple[Shape, ...] = (_stripes, _checks, _rings, _ripples)
