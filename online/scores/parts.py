"""The parts of an evaluation that are scored alike: a row in a terminal, a column on a page each.

trained    s_t  p_t  attention maps      needs no model   mean frame  and `WITHOUT_MODEL`
untrained  s_t  p_t  attention maps      to beat          s_t copied in place of p_t
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from online.scores.evaluation import Evaluation, MaskScores, ReconstructionScores

Display = Literal["page", "terminal", "curves", "tensorboard", "compare"]
"""Where numbers are shown."""


def _not_drawn(evaluation: Evaluation) -> ReconstructionScores | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something whose drawings, masks or both are scored."""

    name: str
    """Name of its row in the terminal; precedes a measure's name in comparisons."""
    group: str
    """Head over the page's columns of this part and its neighbours."""
    column: str
    """Head of its own column."""
    meaning: str
    """One sentence."""
    drawing: Callable[[Evaluation], ReconstructionScores | None] = _not_drawn
    """Scores of what the probe draws from it; None where there are none."""
    own_masks: Callable[[Evaluation], MaskScores | None] | None = None
    """Scores of its masks, where these are not the alphas of the drawing."""
    is_ours: bool = False
    """It was trained, so it stands out among its baselines."""
    left_out: tuple[Display, ...] = ()
    """Where it would only crowd the rest."""

    def masks(self, evaluation: Evaluation) -> MaskScores | None:
        """Scores of its masks; None without ground truth, and for what has no masks."""
        if self.own_masks is not None:
            return self.own_masks(evaluation)
        drawing = self.drawing(evaluation)
        return None if drawing is None else drawing.alphas


CURRENT = Part(
    name="s_t",
    group="current frame, s_t",
    column="trained",
    meaning="From the slots of the frame itself.",
    drawing=lambda e: e.trained.current,
    is_ours=True,
)
UNTRAINED = Part(
    name="untrained s_t",
    group="current frame, s_t",
    column="untrained",
    meaning="From the encoder before its first step, under the same probe.",
    drawing=lambda e: e.untrained.current,
)
PREDICTED = Part(
    name="p_t",
    group="predicted frame, p_t",
    column="trained",
    meaning="From slots that were predicted from the two frames before.",
    drawing=lambda e: e.trained.predicted,
    is_ours=True,
)
ATTENTION = Part(
    name="attention",
    group="attention maps",
    column="trained",
    meaning="Where the slots looked as the frame was encoded, without a probe; the segments of "
    "slots that start at objects.",
    own_masks=lambda e: e.trained.attention,
    is_ours=True,
)
BLOCKS = Part(
    name="blocks",
    group="without a model",
    column="blocks",
    meaning="A grid on the image, with as many blocks as there are slots, or fewer. Where slots "
    "start at objects: as many as objects are visible on average, and one more; so the next three.",
    own_masks=lambda e: e.without_model and e.without_model.blocks,
)
COLOURS = Part(
    name="colours",
    group="without a model",
    column="colours",
    meaning="The nearest of as many colours as there are slots, found by k-means in the training "
    "part.",
    own_masks=lambda e: e.without_model and e.without_model.colours,
)
FRAME_K_MEANS = Part(
    name="k-means in each frame",
    group="without a model",
    column="k-means in each frame",
    meaning="As many clusters of the smoothed colours of a frame as there are slots, found in that "
    "frame alone.",
    own_masks=lambda e: e.without_model and e.without_model.frame_k_means,
)
FRAME_WARD = Part(
    name="Ward in each frame",
    group="without a model",
    column="Ward in each frame",
    meaning="As many regions of a frame as there are slots, merged from small cells by Ward's "
    "criterion, in that frame alone.",
    own_masks=lambda e: e.without_model and e.without_model.frame_ward,
)
WITHOUT_MODEL = (BLOCKS, COLOURS, FRAME_K_MEANS, FRAME_WARD)
"""Segmentations that need no model: what the best of them scores is not evidence of learning."""

PARTS = (
    CURRENT,
    UNTRAINED,
    PREDICTED,
    Part(
        name="untrained p_t",
        group="predicted frame, p_t",
        column="untrained",
        meaning="From slots that the encoder and the transition predict before their first step.",
        drawing=lambda e: e.untrained.predicted,
        left_out=("compare",),
    ),
    Part(
        name="copied as p_t",
        group="predicted frame, p_t",
        column="copied",
        meaning="From the trained slots that the prediction starts from, as if nothing moved, "
        "which p_t has to beat.",
        drawing=lambda e: e.copied,
    ),
    ATTENTION,
    Part(
        name="untrained attention",
        group="attention maps",
        column="untrained",
        meaning="Where the slots looked before the first step.",
        own_masks=lambda e: e.untrained.attention,
    ),
    Part(
        name="mean frame",
        group="without a model",
        column="mean frame",
        meaning="The mean of the training frames, whatever the frame.",
        drawing=lambda e: ReconstructionScores(
            mse=e.mean_frame_mse, mse_share=1.0, psnr=e.mean_frame_psnr, alphas=None
        ),
        left_out=("compare",),
    ),
    *WITHOUT_MODEL,
)
"""In the order of the page's columns."""


def parts(display: Display) -> list[Part]:
    """All that are shown there."""
    return [part for part in PARTS if display not in part.left_out]
