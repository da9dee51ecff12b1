"""Small RGB pictures of one held-out frame: what figures and reports are put together from.

    segments   the colour of the slot with the largest alpha, or whose object it is, and nothing
               of the frame
    drawn      alpha * slot picture + (1 - alpha) * grey
    alpha      alpha * the slot's colour
    attention  A / max over positions A * the slot's colour

Slot k has one colour everywhere, slate for one that covers more than half of what is shown; a
ground-truth object takes the colour of the slot that covers it best.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped, UInt8

from ingest.frame import UNKNOWN_LABEL
from online.scores.evaluation import Panels

GROUND = (118, 122, 130)
"""Behind a slot's picture: neither the black nor the white that objects often have."""
SLATE = (122, 134, 156)
"""The slot of the background, so that objects stand out from it."""
UNKNOWN_GREY = (60, 60, 60)
"""Ground truth where there is no annotation."""
_COLOURS = (
    (76, 194, 255),
    (255, 159, 64),
    (61, 220, 151),
    (255, 93, 143),
    (255, 225, 77),
    (181, 140, 255),
    (164, 217, 44),
    (255, 122, 92),
)
_GOLDEN_RATIO = 0.618034


@dataclass(frozen=True, slots=True, eq=False)
class SlotTiles:
    """What one slot holds of one frame."""

    colour: tuple[int, int, int]
    drawn: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w 3"]
    attention: UInt8[np.ndarray, "gh gw 3"]


@dataclass(frozen=True, slots=True, eq=False)
class FrameTiles:
    """All pictures of one frame."""

    name: str
    frame: UInt8[np.ndarray, "h w 3"]
    truth: UInt8[np.ndarray, "h w 3"] | None
    segments: UInt8[np.ndarray, "h w 3"]
    attended: UInt8[np.ndarray, "h w 3"]
    """Segments by attention instead of alphas."""
    reconstruction: UInt8[np.ndarray, "h w 3"]
    predicted: UInt8[np.ndarray, "h w 3"]
    untrained: UInt8[np.ndarray, "h w 3"]
    slots: list[SlotTiles]


def frame_tiles(panels: Panels, *, most: int) -> list[FrameTiles]:
    """Tiles of at most `most` of the panels' frames, evenly spread, in their order."""
    n = len(panels.names)
    rows = np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(int)).tolist()
    colours, truth_colours = panel_colours(panels), None
    if panels.truth is not None:
        truth_colours = match_colours(panels.truth, _labels(panels), colours)
    return [_tiles(panels, row, colours, truth_colours) for row in rows]


def panel_colours(panels: Panels) -> UInt8[np.ndarray, "k 3"]:
    """`slot_colours` by what each slot covers of the panels."""
    return slot_colours(_labels(panels), panels.alphas.shape[1])


def has_segments(panels: Panels) -> bool:
    """Whether slots start at objects: attention is then their segments, which need no probe."""
    is_fine = panels.attention.shape[2:] == panels.frames.shape[1:3]
    return is_fine and bool(np.isin(panels.attention, (0, 1)).all())


def _labels(panels: Panels) -> Int[np.ndarray, "n h w"]:
    """The slot of each pixel: by segments where there are any, else by the largest alpha."""
    return (panels.attention if has_segments(panels) else panels.alphas).argmax(axis=1)


def slot_colours(labels: Int[np.ndarray, "n h w"], count: int) -> UInt8[np.ndarray, "k 3"]:
    """One colour for each of `count` slots, readable on dark ground.

    The first eight are chosen by hand; the slot that most pixels are labelled with is slate if it
    has more than half of them.
    """
    hues = (np.arange(max(0, count - len(_COLOURS))) * _GOLDEN_RATIO) % 1
    more = [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.45, 0.9)) for hue in hues]
    colours = np.array([*_COLOURS, *more][:count], dtype=np.uint8).reshape(count, 3)
    pixels = np.bincount(labels.ravel(), minlength=count)
    if 2 * pixels.max() > pixels.sum():
        colours[pixels.argmax()] = SLATE
    return colours


def match_colours(
    truth: Integer[np.ndarray, "n h w"],
    labels: Int[np.ndarray, "n h w"],
    colours: UInt8[np.ndarray, "k 3"],
) -> UInt8[np.ndarray, "o 3"]:
    """Colours of ground-truth labels 0..o-1: background black, an object its best slot's.

    Pairs are taken greedily by IoU over all frames, each slot once; an object that is left
    without a slot is white. What is not known is grey.
    """
    objects, slots = int(truth.max()) + 1, len(colours)
    pairs = truth.astype(np.int64) * slots + labels
    known = pairs[truth != UNKNOWN_LABEL]
    overlap = np.bincount(known, minlength=objects * slots).reshape(objects, slots)
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0, keepdims=True) - overlap
    iou = overlap / np.maximum(union, 1)
    found = np.full((objects, 3), 255, dtype=np.uint8)
    found[0] = 0
    found[UNKNOWN_LABEL:] = UNKNOWN_GREY
    iou[0] = 0
    while iou.max() > 0:
        label, slot = np.unravel_index(iou.argmax(), iou.shape)
        found[label] = colours[slot]
        iou[label], iou[:, slot] = 0, 0
    return found


def attention_segments(
    attention: Float[np.ndarray, "k gh gw"], *, height: int, width: int
) -> Int[np.ndarray, "h w"]:
    """The slot that each pixel counts most for: argmax of attention normalised over positions."""
    normalised = attention / np.maximum(attention.sum(axis=(1, 2), keepdims=True), 1e-12)
    return spread_over(normalised.argmax(axis=0), height=height, width=width)


def spread_over(
    cells: Shaped[np.ndarray, "gh gw"], *, height: int, width: int
) -> Shaped[np.ndarray, "h w"]:
    """For each pixel of a picture the value of the cell that it is in."""
    rows = np.arange(height) * cells.shape[0] // height
    columns = np.arange(width) * cells.shape[1] // width
    return cells[rows[:, None], columns]


def _tiles(
    panels: Panels,
    row: int,
    colours: UInt8[np.ndarray, "k 3"],
    truth_colours: UInt8[np.ndarray, "o 3"] | None,
) -> FrameTiles:
    frame, attention, alphas = panels.frames[row], panels.attention[row], panels.alphas[row]
    labels, drawn, used = alphas.argmax(axis=0), panels.slots[row], len(colours)
    if has_segments(panels):
        labels, alphas = attention.argmax(axis=0), attention
        drawn = np.broadcast_to(frame, drawn.shape)
        used = 1 + int(np.flatnonzero(panels.attention.sum(axis=(0, 2, 3))).max())
    attended = attention_segments(attention, height=frame.shape[0], width=frame.shape[1])
    truth = None
    if panels.truth is not None and truth_colours is not None:
        truth = truth_colours[panels.truth[row]]
    return FrameTiles(
        name=panels.names[row],
        frame=frame,
        truth=truth,
        # flat: with the frame shining through, an object that no slot found would still be seen
        segments=colours[labels],
        attended=colours[attended],
        reconstruction=panels.reconstruction[row],
        predicted=panels.predicted[row],
        untrained=panels.untrained[row],
        slots=[
            SlotTiles(
                colour=(int(colour[0]), int(colour[1]), int(colour[2])),
                drawn=_on_ground(drawn[k], alphas[k]),
                alpha=_tinted(panels.alphas[row, k], colour),
                attention=_tinted(_to_maximum(attention[k]), colour),
            )
            for k, colour in enumerate(colours[:used])
        ],
    )


def _on_ground(
    picture: UInt8[np.ndarray, "h w 3"], alpha: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    share = alpha.astype(np.float64)[..., None]
    return _to_bytes(share * picture + (1 - share) * np.array(GROUND))


def _tinted(
    share: Float[np.ndarray, "h w"], colour: UInt8[np.ndarray, " 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    return _to_bytes(share.astype(np.float64)[..., None] * colour)


def _to_maximum(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    return values / max(float(values.max()), 1e-12)


def _to_bytes(values: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return values.round().clip(0, 255).astype(np.uint8)
