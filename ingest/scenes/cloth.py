"""Table cloths without end, as a camera above sees them: smooth waves of colour, or a quilt."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32

from ingest.scenes.base import saturated_colours
from ingest.scenes.shapes import PlaneWaves

_NUM_WAVES = 10
_NUM_COLOURS = 8
_SHARPNESS = 16.0
"""How suddenly one colour of a quilt gives way to the next."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Where the camera is in each frame: `centre` in sides, `turn` in radians."""

    centre: Float[np.ndarray, "n 2"]
    zoom: Float[np.ndarray, " n"]
    turn: Float[np.ndarray, " n"]

    def in_picture(self, places: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Places on the table as shares of the picture's side, (x, y)."""
        dx, dy = (self.zoom[:, None] * (places - self.centre)).T
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return 0.5 + np.stack([cos * dx + sin * dy, cos * dy - sin * dx], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Cloth:
    """A smooth texture."""

    waves: PlaneWaves

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Cloth":
        """A cloth by chance."""
        return cls(PlaneWaves.drawn(rng, _NUM_WAVES, rates=(6.0, 50.0), mean=(0.3, 0.6)))

    def seen(self, view: View, *, size: int) -> Float32[np.ndarray, "n size size 3"]:
        """RGB of the cloth in each frame."""
        return self.waves.mean.astype(np.float32) + _swing(self.waves, view, size=size)


@dataclass(frozen=True, slots=True, eq=False)
class Quilt:
    """Patches of eight colours: at each place the one whose channel of the waves is highest."""

    waves: PlaneWaves
    colours: Float[np.ndarray, "colours 3"]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Quilt":
        """A quilt by chance; its hues lie evenly around the circle."""
        waves = PlaneWaves.drawn(rng, _NUM_WAVES, rates=(4.0, 14.0), mean=(0.0, 0.0))
        tints = rng.normal(size=(_NUM_WAVES, _NUM_COLOURS))
        hues = rng.random() + np.arange(_NUM_COLOURS) / _NUM_COLOURS
        saturation = rng.uniform(0.45, 0.85, (_NUM_COLOURS, 1))
        value = rng.uniform(0.35, 0.95, (_NUM_COLOURS, 1))
        colours = value * (1 - saturation * (1 - saturated_colours(hues)))
        tints /= np.abs(tints).sum(axis=0)
        return cls(replace(waves, tints=tints, mean=np.zeros(_NUM_COLOURS)), colours)

    def seen(self, view: View, *, size: int) -> Float32[np.ndarray, "n size size 3"]:
        """RGB of the quilt in each frame."""
        height = _SHARPNESS * _swing(self.waves, view, size=size)
        share = np.exp(height - height.max(axis=-1, keepdims=True))
        share /= share.sum(axis=-1, keepdims=True)
        return share @ self.colours.astype(np.float32)

    def pairs(self, count: int, rng: np.random.Generator) -> Float[np.ndarray, "count 2 3"]:
        """Two of the colours for each of `count` objects, by chance."""
        return np.stack([rng.permutation(self.colours)[:2] for _ in range(count)])


def _swing(
    waves: PlaneWaves, view: View, *, size: int
) -> Float32[np.ndarray, "n size size channels"]:
    """Waves by sin(a + b) = sin a cos b + cos a sin b, with a of rows and b of columns."""
    pixels = (np.arange(size) + 0.5) / size - 0.5
    cos, sin = np.cos(view.turn) / view.zoom, np.sin(view.turn) / view.zoom
    kx, ky = waves.waves.T
    along = np.outer(cos, kx) + np.outer(sin, ky)  # n waves: per pixel to the right
    down = np.outer(cos, ky) - np.outer(sin, kx)
    a = (view.centre @ waves.waves.T + waves.phases)[:, None] + pixels[:, None] * down[:, None]
    b = along[:, :, None] * pixels
    of_rows = np.concatenate([np.sin(a), np.cos(a)], axis=2).astype(np.float32)
    waves_of_columns = np.concatenate([np.cos(b), np.sin(b)], axis=1)
    tints = np.tile(waves.tints, (2, 1))
    of_columns = (waves_of_columns[..., None] * tints[:, None]).astype(np.float32)
    n = len(view.turn)
    swing = of_rows @ of_columns.reshape(n, 2 * len(waves.waves), -1)
    return swing.reshape(n, size, size, -1)
