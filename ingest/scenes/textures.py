"""Square textures for surfaces in 3D: two colours, a pattern that mixes them, and some grain.

texture = (first (1 - share) + second share) (0.7 + 0.3 grain)    share, grain in 0..1
"""

from collections.abc import Callable, Sequence
from math import pi, sqrt

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ingest.scenes.base import saturated_colours

Plane = Float[np.ndarray, "side side"]
Pattern = Callable[[np.random.Generator, Plane, Plane], Plane]
"""The second colour's share, at x and y in 0..1."""

_NEAR = 0.35
"""How far the two colours of a muted texture are apart, in each channel, at most."""


def drawn_texture(
    rng: np.random.Generator, *, side: int, muted: bool = False
) -> UInt8[np.ndarray, "side side 3"]:
    """A texture by chance; the colours of a muted one are close to each other."""
    first = drawn_colour(rng)
    second = drawn_colour(rng)
    if muted:
        second = np.clip(first + rng.uniform(-_NEAR, _NEAR, 3), 0, 1)
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    share = PATTERNS[rng.integers(len(PATTERNS))](rng, x, y)[..., None]
    grain = 0.7 + 0.3 * _noise(rng, side, (8, 32, 128))[..., None]
    return np.rint(255 * grain * (first * (1 - share) + second * share)).astype(np.uint8)


def drawn_colour(rng: np.random.Generator) -> Float[np.ndarray, " 3"]:
    """RGB in 0..1 of any hue, neither all grey nor all dark."""
    hue, saturation, value = rng.random(), rng.uniform(0.2, 1), rng.uniform(0.35, 1)
    return value * (1 - saturation * (1 - saturated_colours(np.array(hue))))


def _noise(rng: np.random.Generator, side: int, cells: Sequence[int]) -> Plane:
    """Smooth noise in 0..1: the sum of random grids of so many cells a side."""
    total = np.zeros((side, side))
    for count in cells:
        grid = Image.fromarray(rng.random((count, count), dtype=np.float32))
        smooth = grid.resize((side, side), Image.Resampling.BICUBIC)
        total += np.asarray(smooth) / sqrt(count)
    return (total - total.min()) / np.ptp(total)


def _marble(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    return _noise(rng, len(x), (4, 8, 16, 32, 64))


def _wood(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    bent = x + 0.25 * _noise(rng, len(x), (3, 6))
    return 0.5 + 0.5 * np.sin(2 * pi * rng.integers(2, 9) * bent)


def _checks(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    count = 2 * rng.integers(2, 9)
    return (np.floor(count * x) + np.floor(count * y)) % 2


def _stripes(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    angle = rng.uniform(0, pi)
    across = np.cos(angle) * x + np.sin(angle) * y
    return (np.sin(2 * pi * rng.integers(2, 9) * across) > 0).astype(np.float64)


def _dots(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    count = rng.integers(2, 9)
    return (np.hypot(count * x % 1 - 0.5, count * y % 1 - 0.5) < 0.3).astype(np.float64)


def _bricks(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    count = rng.integers(2, 9)
    row, up = np.divmod(2 * count * y, 1)
    along = (count * x + 0.5 * (row % 2)) % 1
    return ((up >= 0.12) & (along >= 0.06)).astype(np.float64)


def _plain(rng: np.random.Generator, x: Plane, y: Plane) -> Plane:
    return np.zeros_like(x)


PATTERNS: tuple[Pattern, ...] = (_marble, _wood, _checks, _stripes, _dots, _bricks, _plain)
