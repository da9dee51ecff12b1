"""What footage each preset is made for, and how footage that is there differs from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FAR = 1.5
"""Sizes and rates further apart than by this factor do not match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFor:
    """How to ingest for a preset."""

    size: int
    """Side of the frames, as `setcon ingest --size`."""
    fps: float | None = None
    """The same for `--fps`; None where any rate will do."""

    @property
    def options(self) -> str:
        """As they are typed."""
        return f"--size {self.size}" + (f" --fps {self.fps:g}" if self.fps else "")


MADE_FOR = {
    "balls": MadeFor(size=32),
    "demo": MadeFor(size=32),
    "gridworld": MadeFor(size=5),
    "seven-object": MadeFor(size=128),
    "tabletop": MadeFor(size=64, fps=5.0),
    "things": MadeFor(size=128, fps=30.0),
    "three-object": MadeFor(size=128),
    "video": MadeFor(size=32),
}
"""Of every preset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """A recording as it is."""

    width: int
    height: int
    fps: float | None = None


def mismatch(preset: str, footage: Sequence[Footage]) -> str | None:
    """How footage differs from what a preset is made for, and what to do; None where it fits."""
    wanted = MADE_FOR[preset]
    for each in footage:
        side = max(each.width, each.height)
        if side > FAR * wanted.size or side * FAR < wanted.size:
            return (
                f"{preset} is made for frames of {wanted.options}, these are "
                f"{each.width}x{each.height}: a step takes about "
                f"{each.width * each.height / wanted.size**2:.2g} times as long, and results are "
                f"not those of the preset; ingest with {wanted.options}, or choose another --preset"
            )
        if wanted.fps and each.fps and each.fps > FAR * wanted.fps:
            return (
                f"{preset} is made for {wanted.options}, this footage has {each.fps:.3g} frames a "
                f"second: objects hardly move between frames; ingest with {wanted.options}"
            )
    return None
