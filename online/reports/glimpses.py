"""Pictures of a glimpse: the newest frame, its segments, and the part of it that each slot reads.

segments   the slot that each pixel counts most for, by attention: no probe is needed
slot       share of the slot's attention * frame + (1 - share) * grey
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from online.reports.figures import GAP, LINE, MARGIN, MUTED, Sheet, tile_size
from online.reports.tiles import GROUND, attention_segments, slot_colours, spread_over
from online.runs.glimpse import Glimpse

SHINE = 0.55
"""How much of the colour of its slot a frame takes on."""

Picture = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True, eq=False)
class GlimpseSlot:
    """One slot that is shown."""

    number: int
    """From 0 on."""
    colour: tuple[int, int, int]
    picture: Picture
    share: float
    """Of all pixels, those that count most for it."""


@dataclass(frozen=True, slots=True, eq=False)
class GlimpseTiles:
    """All pictures of one glimpse."""

    frame: Picture
    segments: Picture
    mixed: Picture
    """The frame under its segments."""
    slots: list[GlimpseSlot]


def glimpse_tiles(
    glimpse: Glimpse, colours: UInt8[np.ndarray, "k 3"] | None = None
) -> GlimpseTiles:
    """Pictures in the slots' `colours`, or where none are given in those of this frame.

    Of slots that start at objects only those that hold one are shown.
    """
    height, width = glimpse.frame.shape[:2]
    shares = glimpse.attention.astype(np.float64) / 255
    labels = _labels(glimpse, shares)
    count = len(shares)
    if colours is None or len(colours) != count:
        colours = slot_colours(labels[None], count)
    segments = colours[labels]
    mixed = ((1 - SHINE) * glimpse.frame + SHINE * segments).round().astype(np.uint8)
    pixels = np.bincount(labels.ravel(), minlength=count) / labels.size
    shown = range(count)
    if glimpse.segments is not None:
        shown = [k for k in shown if pixels[k] > 0]
        shares = (labels[None] == np.arange(count)[:, None, None]).astype(np.float64)
    return GlimpseTiles(
        frame=glimpse.frame,
        segments=segments,
        mixed=mixed,
        slots=[
            GlimpseSlot(
                number=k,
                colour=(int(colours[k][0]), int(colours[k][1]), int(colours[k][2])),
                picture=_over_ground(
                    glimpse.frame, spread_over(shares[k], height=height, width=width)
                ),
                share=float(pixels[k]),
            )
            for k in shown
        ],
    )


def draw_glimpse(glimpse: Glimpse, colours: UInt8[np.ndarray, "k 3"] | None = None) -> Image.Image:
    """All of it in one row, for a page without a live view."""
    tiles = glimpse_tiles(glimpse, colours)
    size = tile_size(*glimpse.frame.shape[:2])
    count = 3 + len(tiles.slots)
    sheet = Sheet(
        2 * MARGIN + count * (size.width + GAP) - GAP, 2 * MARGIN + LINE + 4 + size.height
    )
    columns = [MARGIN + i * (size.width + GAP) for i in range(count)]
    whole = (("frame", tiles.frame), ("segments", tiles.segments), ("both", tiles.mixed))
    for left, (heading, picture) in zip(columns[:3], whole, strict=True):
        sheet.text(left, MARGIN, heading, width=size.width, colour=MUTED)
        sheet.picture(left, MARGIN + LINE + 4, picture, size)
    for left, slot in zip(columns[3:], tiles.slots, strict=True):
        sheet.slot_heading(left, MARGIN, slot.number, slot.colour, size.width)
        sheet.picture(left, MARGIN + LINE + 4, slot.picture, size)
    return sheet.image


def _labels(glimpse: Glimpse, shares: Float[np.ndarray, "k gh gw"]) -> Int[np.ndarray, "h w"]:
    height, width = glimpse.frame.shape[:2]
    if glimpse.segments is not None:
        return glimpse.segments.astype(np.int64).clip(0, len(shares) - 1)
    return attention_segments(shares, height=height, width=width)


def _over_ground(frame: Picture, share: np.ndarray) -> Picture:
    alpha = share[..., None]
    return (alpha * frame + (1 - alpha) * np.array(GROUND)).round().clip(0, 255).astype(np.uint8)
