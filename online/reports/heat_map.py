"""The matrix R as a picture: a row for each segment of the stream, a column for each recording."""

from __future__ import annotations

from PIL import Image, ImageDraw

from online.reports.figures import GAP, INK, LINE, MARGIN, MUTED, Colour, Sheet, to_png
from online.scores.matrix import Continual

CELL_WIDTH, CELL_HEIGHT = 112, 40
NAME_WIDTH = 190
_LOW: Colour = (33, 38, 50)
_HIGH: Colour = (76, 194, 255)
_DARK_INK: Colour = (12, 16, 22)


def heat_map_figure(continual: Continual) -> bytes:
    """`draw_heat_map` as a PNG."""
    return to_png(draw_heat_map(continual))


def draw_heat_map(continual: Continual) -> Image.Image:
    """R, below the untrained encoder; what was learned up to a row is framed."""
    rows = continual.rows
    left, top = MARGIN + NAME_WIDTH, MARGIN + 2 * LINE
    sheet = Sheet(
        left + len(continual.recordings) * (CELL_WIDTH + GAP) - GAP + MARGIN,
        top + len(rows) * (CELL_HEIGHT + GAP) - GAP + MARGIN,
    )
    draw = ImageDraw.Draw(sheet.image)
    title = f"{continual.measure} on held-out frames of"
    sheet.text(left, MARGIN, title, width=sheet.image.width - left - MARGIN, colour=MUTED)
    for column, name in enumerate(continual.recordings):
        sheet.text(
            left + column * (CELL_WIDTH + GAP), MARGIN + LINE, name, width=CELL_WIDTH, bold=True
        )
    for row, (name, scores) in enumerate(rows):
        y = top + row * (CELL_HEIGHT + GAP)
        sheet.text(MARGIN, y + (CELL_HEIGHT - LINE) // 2, name, width=NAME_WIDTH - GAP)
        for column, score in enumerate(scores):
            x = left + column * (CELL_WIDTH + GAP)
            box = (x, y, x + CELL_WIDTH - 1, y + CELL_HEIGHT - 1)
            share = min(1.0, max(0.0, score))
            fill = tuple(round(a + share * (b - a)) for a, b in zip(_LOW, _HIGH, strict=True))
            learned = continual.recordings[column] in continual.segments[:row]
            is_segment = 0 < row <= len(continual.segments)
            draw.rectangle(box, fill=fill, outline=INK if is_segment and learned else None, width=2)
            ink = _DARK_INK if share > 0.55 else INK
            sheet.text(
                x + CELL_WIDTH // 2,
                y + (CELL_HEIGHT - LINE) // 2 + 2,
                f"{score:.3f}",
                colour=ink,
                anchor="ma",
            )
    return sheet.image
