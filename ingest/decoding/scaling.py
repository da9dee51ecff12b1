"""From the frame a decoder gives to the upright RGB image that is stored.

    coded frame ──scale and convert in one pass──▶ mirror and turn ──▶ cut or pad the middle

Cutting happens after scaling, on the small image: no second full-size copy is ever made.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8

from ingest.store.records import Fit, Size, sides

_KERNEL = Interpolation.BILINEAR  # swscale widens it with the ratio, so it averages when shrinking
_MATRICES = {  # AVColorSpace of a frame -> the reformatter's constant
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """How every frame of one coded size becomes an image of `height` x `width`."""

    scaled_height: int
    scaled_width: int
    """What the decoder's scaler is to deliver, before the frame is turned upright."""
    quarter_turns: int
    """Counterclockwise."""
    is_mirrored: bool = False
    """Whether left and right are exchanged before it is turned."""
    height: int
    width: int

    def turned(self) -> "FitPlan":
        """The plan for a decoder that turns frames upright by itself, before scaling them."""
        if self.quarter_turns % 2:
            scaled = {"scaled_height": self.scaled_width, "scaled_width": self.scaled_height}
            return replace(self, quarter_turns=0, is_mirrored=False, **scaled)
        return replace(self, quarter_turns=0, is_mirrored=False)

    def place(self, scaled: UInt8[np.ndarray, "sh sw *c"]) -> UInt8[np.ndarray, "h w *c"]:
        """Turn a scaled frame upright and cut or pad its middle to the final size."""
        upright = scaled[:, ::-1] if self.is_mirrored else scaled
        if self.quarter_turns:
            upright = np.rot90(upright, self.quarter_turns)
        rows, columns = self.height - upright.shape[0], self.width - upright.shape[1]
        cut = upright[_middle(-rows), _middle(-columns)]
        if rows <= 0 and columns <= 0:
            return np.ascontiguousarray(cut)
        image = np.zeros((self.height, self.width, *upright.shape[2:]), np.uint8)
        image[_middle(rows), _middle(columns)] = cut
        return image

    def place_nearest(self, coded: UInt8[np.ndarray, "ch cw"]) -> UInt8[np.ndarray, "h w"]:
        """The same for a label map, where only existing labels may come out."""
        rows = _nearest(coded.shape[0], self.scaled_height)
        columns = _nearest(coded.shape[1], self.scaled_width)
        return self.place(coded[rows[:, None], columns])


def plan_fit(
    coded_height: int,
    coded_width: int,
    *,
    size: Size,
    fit: Fit,
    pixel_aspect: Fraction = Fraction(1),
    quarter_turns: int = 0,
    is_mirrored: bool = False,
) -> FitPlan:
    """Work out one coded size: `pixel_aspect` is the width of a pixel over its height."""
    shown_height, shown_width = Fraction(coded_height), coded_width * pixel_aspect
    turned = quarter_turns % 2 == 1
    if turned:
        shown_height, shown_width = shown_width, shown_height
    if size is None:
        height, width = max(1, round(shown_height)), max(1, round(shown_width))
    else:
        width, height = sides(size)
    if size is None or fit == "stretch":
        upright_height, upright_width = height, width
    else:
        side = max if fit == "crop" else min
        scale = side(height / shown_height, width / shown_width)
        upright_height = max(1, round(shown_height * scale))
        upright_width = max(1, round(shown_width * scale))
    return FitPlan(
        scaled_height=upright_width if turned else upright_height,
        scaled_width=upright_height if turned else upright_width,
        quarter_turns=quarter_turns,
        is_mirrored=is_mirrored,
        height=height,
        width=width,
    )


class Scaler:
    """Makes upright RGB images of one size; belongs to one thread.

    It keeps one VideoReformatter: `frame.reformat` would build a scaler for each frame.
    """

    def __init__(self, *, size: Size, fit: Fit) -> None:
        # nearly every frame has the plan of the one before
        self._plan = lru_cache(maxsize=1)(partial(plan_fit, size=size, fit=fit))
        self._reformatter = VideoReformatter()

    def plan(self, frame: VideoFrame, pixel_aspect: Fraction = Fraction(1)) -> FitPlan:
        """How a frame is going to be scaled, turned and cut."""
        quarter_turns, is_mirrored = _orientation(frame)
        return self._plan(
            frame.height,
            frame.width,
            pixel_aspect=pixel_aspect,
            quarter_turns=quarter_turns,
            is_mirrored=is_mirrored,
        )

    def image(self, frame: VideoFrame, plan: FitPlan) -> UInt8[np.ndarray, "h w 3"]:
        """Scale, convert and place a frame."""
        scaled = self._reformatter.reformat(
            frame,
            width=plan.scaled_width,
            height=plan.scaled_height,
            format="rgb24",
            src_colorspace=_MATRICES.get(frame.colorspace, Colorspace.DEFAULT),
            dst_colorspace=Colorspace.DEFAULT,
            src_color_range=ColorRange(frame.color_range),
            dst_color_range=ColorRange.JPEG,
            interpolation=_KERNEL,
            threads=1,  # its own threads cost more than they give at such sizes
        )
        return plan.place(scaled.to_ndarray())


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Quarter turns counterclockwise, and whether the frame is mirrored before them.

    The display matrix of a frame takes a pixel (x, y) to (a x + c y, b x + d y).
    """
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # pyright: ignore[reportCallIssue, reportArgumentType]
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return round(math.atan2(c, d) / (math.pi / 2)) % 4, a * d < b * c


def _middle(surplus: int) -> slice:
    """Leave out `surplus` elements, half of them at each end; nothing for a negative surplus."""
    before = max(surplus, 0) // 2
    after = max(surplus, 0) - before
    return slice(before, -after or None)


def _nearest(length: int, scaled: int) -> np.ndarray:
    return ((np.arange(scaled) + 0.5) * (length / scaled)).astype(np.intp)
