"""Pictures of what a model sees: every panel of a probe, and a compact one to open a page with.

    panel_figure   a block per held-out frame          hero_figure   a row per held-out frame

      frame    truth      segments │ slot 1  slot 2 …    frame  reconstruction  segments │ slots …
                                   │ drawn
                                   │ alpha
      reconst. predicted  untrained│ attention

Both stand on a dark ground of their own, which reads on light and dark pages alike.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from online.reports.tiles import FrameTiles, frame_tiles, has_segments
from online.scores.evaluation import Panels

Colour = tuple[int, int, int]

OBJECTS_CAPTION = (
    "Footage that was never trained on. Segments: the objects that were found, each in the colour "
    "of its slot. Slots: the part of the frame that each one reads. Reconstruction: what the probe "
    "draws from all slots."
)
HERO_CAPTION = (
    "Footage that was never trained on. Segments: the colour of the slot with the largest alpha at "
    "each pixel, so that an object without a slot cannot be seen. Slots: what the probe draws "
    "from each slot alone, over grey where its alpha leaves room for others."
)

PAPER: Colour = (21, 24, 30)
INK: Colour = (230, 233, 238)
MUTED: Colour = (156, 163, 175)
TEXT_PIXELS = 15
LINE = 22
"""Height of a line of text."""
GAP = 8
MARGIN = 20
TILE = 128
"""Side of a tile, about: small frames are enlarged by whole factors."""


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int


def panel_figure(panels: Panels, *, most: int = 8) -> bytes:
    """All that was read from at most `most` frames, as a PNG."""
    return to_png(draw_panels(panels, most=most))


def hero_figure(panels: Panels, *, most: int = 4, said: str = "") -> bytes:
    """Frames, reconstructions, segments and slots of at most `most` frames, as a PNG.

    A page explains its picture in text; this one says it in itself, after what is `said` first.
    """
    caption = f"{said} {hero_caption(panels)}".strip()
    return to_png(draw_hero(panels, most=most, caption=caption))


def hero_caption(panels: Panels) -> str:
    """What `draw_hero` shows, in words."""
    return OBJECTS_CAPTION if has_segments(panels) else HERO_CAPTION


def to_png(image: Image.Image) -> bytes:
    """The same bytes for the same picture."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def draw_panels(panels: Panels, *, most: int) -> Image.Image:
    """Blocks of large pictures at the left, next to each slot's picture, alpha and attention."""
    frames = frame_tiles(panels, most=most)
    small = tile_size(panels.frames.shape[1], panels.frames.shape[2])
    large = Size(small.width * 3 // 2, small.height * 3 // 2)
    label_width = 88
    slots_left = MARGIN + 3 * (large.width + GAP) + label_width
    num_slots = len(frames[0].slots)
    block = LINE + 8 + 2 * (LINE + large.height) + GAP
    sheet = Sheet(
        slots_left + num_slots * (small.width + GAP) - GAP + MARGIN,
        MARGIN + len(frames) * (block + 2 * MARGIN) - 2 * MARGIN + MARGIN,
    )
    for index, tiles in enumerate(frames):
        top = MARGIN + index * (block + 2 * MARGIN)
        if index:
            sheet.rule(top - MARGIN)
        sheet.text(MARGIN, top, tiles.name, width=sheet.image.width - 2 * MARGIN, bold=True)
        _draw_large(sheet, tiles, large, top=top + LINE + 8)
        _draw_slots(sheet, tiles, small, large, left=slots_left, top=top + LINE + 8)
    return sheet.image


def draw_hero(panels: Panels, *, most: int, caption: str = "") -> Image.Image:
    """One row per frame, time going down, and the caption below."""
    frames = frame_tiles(panels, most=most)
    size = tile_size(panels.frames.shape[1], panels.frames.shape[2])
    shared, times = split_names([tiles.name for tiles in frames])
    names_width = max(_width(text) for text in times) + 14
    names_width = min(names_width, size.width)
    slots_left = MARGIN + names_width + 3 * (size.width + GAP) + GAP
    num_slots = len(frames[0].slots)
    top = MARGIN + (LINE + 6 if shared else 0)
    width = slots_left + num_slots * (size.width + GAP) - GAP + MARGIN
    lines = _wrapped(caption, width - 2 * MARGIN)
    below = top + LINE + 4 + len(frames) * (size.height + GAP)
    sheet = Sheet(width, below + (len(lines) * LINE if lines else -GAP) + MARGIN)
    for number, line in enumerate(lines):
        sheet.text(MARGIN, below + number * LINE, line, colour=MUTED)
    sheet.text(MARGIN, MARGIN, shared, width=sheet.image.width - 2 * MARGIN, bold=True)
    headings = ("held-out frame", "reconstruction", "segments")
    columns = [MARGIN + names_width + i * (size.width + GAP) for i in range(3)]
    for left, heading in zip(columns, headings, strict=True):
        sheet.text(left, top, heading, width=size.width, colour=MUTED)
    for k in range(num_slots):
        colour = frames[0].slots[k].colour
        sheet.slot_heading(slots_left + k * (size.width + GAP), top, k, colour, size.width)
    for index, (tiles, time) in enumerate(zip(frames, times, strict=True)):
        y = top + LINE + 4 + index * (size.height + GAP)
        sheet.text(
            MARGIN, y + (size.height - LINE) // 2, time, width=names_width - 14, colour=MUTED
        )
        pictures = [tiles.frame, tiles.reconstruction, tiles.segments]
        for left, picture in zip(columns, pictures, strict=True):
            sheet.picture(left, y, picture, size)
        for k, slot in enumerate(tiles.slots):
            sheet.picture(slots_left + k * (size.width + GAP), y, slot.drawn, size)
    return sheet.image


def tile_size(height: int, width: int) -> Size:
    """About `TILE` pixels at the longer side; an even factor where frames are small.

    Even, so that one and a half times the tile is a whole factor too.
    """
    longer = max(height, width)
    factor = max(2, 2 * round(TILE / (2 * longer))) if longer <= 80 else TILE / longer
    return Size(max(2, round(width * factor)), max(2, round(height * factor)))


def split_names(names: list[str]) -> tuple[str, list[str]]:
    """The words that all names start with, and the rest of each; none if a rest would be empty."""
    if len(names) < 2:
        return "", names
    words = [name.split() for name in names]
    columns = list(zip(*words, strict=False))
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    rest = [" ".join(own[shared:]) for own in words]
    return (" ".join(words[0][:shared]), rest) if all(rest) else ("", names)


def _draw_large(sheet: Sheet, tiles: FrameTiles, size: Size, *, top: int) -> None:
    upper = [("frame", tiles.frame), ("segments", tiles.segments)]
    if tiles.truth is None:
        upper.append(("attention segments", tiles.attended))
    else:
        upper.insert(1, ("ground truth", tiles.truth))
    lower = [
        ("reconstruction", tiles.reconstruction),
        ("predicted", tiles.predicted),
        ("untrained encoder", tiles.untrained),
    ]
    for row, pictures in enumerate((upper, lower)):
        y = top + row * (LINE + size.height + GAP)
        for column, (caption, picture) in enumerate(pictures):
            x = MARGIN + column * (size.width + GAP)
            sheet.text(x, y, caption, width=size.width, colour=MUTED)
            sheet.picture(x, y + LINE, picture, size)


def _draw_slots(
    sheet: Sheet, tiles: FrameTiles, size: Size, large: Size, *, left: int, top: int
) -> None:
    # three small rows end where two large ones with their captions do
    step = (2 * large.height + LINE + GAP - size.height) // 2
    for row, name in enumerate(("drawn", "alpha", "attention")):
        y = top + LINE + row * step
        sheet.text(left - GAP, y + (size.height - LINE) // 2, name, colour=MUTED, anchor="ra")
        for k, slot in enumerate(tiles.slots):
            sheet.picture(left + k * (size.width + GAP), y, getattr(slot, name), size)
    for k, slot in enumerate(tiles.slots):
        sheet.slot_heading(left + k * (size.width + GAP), top, k, slot.colour, size.width)


class Sheet:
    """A dark sheet that takes pictures and lines of text."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def picture(self, x: int, y: int, pixels: UInt8[np.ndarray, "h w 3"], size: Size) -> None:
        """Put `pixels` at (x, y), crisp where they are enlarged much."""
        image = Image.fromarray(np.ascontiguousarray(pixels))
        crisp = 2 * image.width <= size.width or image.width == size.width
        kind = Image.Resampling.NEAREST if crisp else Image.Resampling.LANCZOS
        self.image.paste(image.resize((size.width, size.height), kind), (x, y))

    def text(
        self,
        x: int,
        y: int,
        text: str,
        *,
        width: int | None = None,
        colour: Colour = INK,
        anchor: str = "la",
        bold: bool = False,
    ) -> None:
        """One line, cut to `width` pixels."""
        line = _one_line(text)
        shown = line if width is None else _fit(line, width, bold=bold)
        self._draw.text((x, y), shown, fill=colour, font=_font(bold=bold), anchor=anchor)

    def slot_heading(self, x: int, y: int, slot: int, colour: Colour, width: int) -> None:
        """`slot 1` after a dot of its colour."""
        self._draw.ellipse((x, y + 4, x + 10, y + 14), fill=colour)
        self.text(x + 17, y, f"slot {slot + 1}", width=width - 17)

    def rule(self, y: int) -> None:
        """A thin line from margin to margin."""
        ends = [(MARGIN, y), (self.image.width - MARGIN, y)]
        self._draw.line(ends, fill=(52, 57, 67))


def _font(*, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that matplotlib carries: the same everywhere, and wide in its alphabets."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf" / name, TEXT_PIXELS)


def _one_line(text: str) -> str:
    """`text` on one line, and without the stray bytes of an undecodable file name."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _width(text: str) -> int:
    return math.ceil(_font().getlength(_one_line(text)))


def _wrapped(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels, unless a word is longer."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _fit(text: str, width: int, *, bold: bool) -> str:
    font = _font(bold=bold)
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength(kept + "…") > width:
        kept = kept[:-1]
    return kept + "…"
