"""FFmpeg's scaler: one pass from a decoded frame to RGB of the final size."""

from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8

from ingest.decoding.fitting import FitPlan, plan_fit
from ingest.store.records import Fit

_KERNEL = Interpolation.BILINEAR  # swscale widens it with the ratio, so it averages when shrinking
_MATRICES = {  # AVColorSpace of a frame -> what the reformatter is told
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


class Scaler:
    """Makes upright RGB images of one size; belongs to one thread.

    It keeps one VideoReformatter: `frame.reformat` would build a scaler for each frame.
    """

    def __init__(self, *, size: int | None, fit: Fit) -> None:
        self._size = size
        self._fit: Fit = fit
        self._reformatter = VideoReformatter()

    def plan(self, frame: VideoFrame, pixel_aspect: Fraction = Fraction(1)) -> FitPlan:
        """How a frame is going to be scaled, turned and cut."""
        return plan_fit(
            frame.height,
            frame.width,
            size=self._size,
            fit=self._fit,
            pixel_aspect=pixel_aspect,
            quarter_turns=round(frame.rotation / 90) % 4,
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
