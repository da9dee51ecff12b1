"""What an evaluation found: numbers that go to JSON, and the arrays that its panels show."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Float, UInt8

from ingest.disk.durable import write_whole

NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a JSON file raises if it is damaged or holds something else."""
RECENT_CLIPS = 50
"""Latest new clips whose scores are averaged."""
LEAST_CLIPS = 10
"""With fewer, a mean says nothing: one clip holds a handful of predictions of one scene."""
PLACED_R2 = 0.95
"""R² from which a slot is said to know where an object is."""

Step = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
"""An optimizer step read from a file: never negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScores:
    """How well one set of soft masks agrees with the ground truth, mean over held-out frames."""

    fg_ari: float
    """Adjusted Rand index over foreground pixels, frame by frame."""
    fg_ari_video: float | None
    """The same with the pixels of a whole clip pooled: slots must also stay on their objects. None
    for segments that are found in each frame by itself."""
    ari: float
    """Adjusted Rand index over all pixels, background included."""
    mbo: float
    """Mean best overlap: mean over objects of the best IoU with any slot."""
    miou: float | None = None
    """Mean IoU of objects, each matched with a slot of its own. None for runs older than this
    score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionScores:
    """How well the probe draws held-out frames from one kind of slots."""

    mse: float
    """Mean squared error per pixel and channel, images in [0, 1] (x 4 for [-1, 1] units)."""
    mse_share: float | None
    """`mse` divided by that of the mean training frame: 1 means nothing beyond it was read.
    None where that frame has no error, because nothing ever changes."""
    psnr: float | None
    """Peak signal-to-noise ratio of `mse` in dB; None where `mse` is 0."""
    alphas: MaskScores | None
    """Scores of the probe's alphas; None where the recording has no ground-truth masks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The slot from which the place of an object is read best."""

    label: int
    """Label of the object in the ground truth."""
    slot: int
    """From 1 on, as in the pictures."""
    r2: float
    """R² of a linear map from that slot alone to the place, on held-out frames: 1 is exact."""

    @property
    def is_known(self) -> bool:
        """Whether the slot is said to know the place."""
        return self.r2 >= PLACED_R2


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderScores:
    """One encoder under the probe."""

    current: ReconstructionScores
    """From s_t, the slots of the frame itself."""
    predicted: ReconstructionScores
    """From p_t, the slots predicted from the two frames before."""
    attention: MaskScores | None
    """Scores of the attention maps, normalised over positions."""
    probe_train_mse: float
    """The probe's own training error, to distinguish an unfinished probe from a poor encoder."""
    slot_entropy: float
    """Entropy of slot usage as a share of ln(slots): 0 when one slot takes everything."""
    effective_rank: float
    """Effective rank of the set encodings z: 1 when they collapse to a line."""
    places: list[Placed] | None = None
    """Each object that is seen often enough. None without ground-truth masks of both parts, and for
    runs older than this score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutModel:
    """Segmentations that need no model, scored like masks: as many segments as slots, or fewer."""

    blocks: MaskScores
    """A grid of blocks of the image."""
    colours: MaskScores
    """The nearest colour of those that k-means finds in the training part."""
    frame_k_means: MaskScores | None = None
    """Cells of each frame by itself, clustered by k-means of their smoothed colours. None for runs
    older than this score."""
    frame_ward: MaskScores | None = None
    """Cells of each frame by itself, by Ward clustering of neighbours on colour and place. None for
    runs older than this score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A trained and an untrained encoder under the same probe, on held-out footage."""

    step: Step
    trained: EncoderScores
    untrained: EncoderScores
    mean_frame_mse: float
    """Error of the mean training frame on the held-out frames, images in [0, 1]."""
    mean_frame_psnr: float | None
    frames_train: int
    """Frames the probe was trained on."""
    frames_held_out: int
    """Frames scored."""
    frames_without_two_objects: int
    """Annotated held-out frames left out of the mask scores because fewer than two objects are
    visible."""
    seconds: float
    """Wall time of the evaluation."""
    frames_without_annotation: int = 0
    """Held-out frames left out of the mask scores because their masks are not known."""
    has_segments: bool = False
    """Whether slots start at objects, whose segments are then scored as attention: they say which
    object is which without a probe."""
    copied: ReconstructionScores | None = None
    """What p_t has to beat: in its place, the trained s of one frame stride earlier. None for runs
    older than this score."""
    without_model: WithoutModel | None = None
    """None where no frame shows two objects with masks, and for runs older than this score."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panels:
    """A few held-out frames and everything read from them; images are RGB uint8."""

    names: list[str]
    """Recording and time of each frame, for captions."""
    frames: UInt8[np.ndarray, "n h w 3"]
    truth: UInt8[np.ndarray, "n h w"] | None
    """Ground-truth label maps: 0 is background, 255 is not known."""
    reconstruction: UInt8[np.ndarray, "n h w 3"]
    predicted: UInt8[np.ndarray, "n h w 3"]
    """Drawn from the slots predicted out of the two frames before."""
    untrained: UInt8[np.ndarray, "n h w 3"]
    """Drawn from an untrained encoder's slots."""
    slots: UInt8[np.ndarray, "n k h w 3"]
    """What the probe draws from each slot alone, not multiplied by alpha."""
    alphas: Float[np.ndarray, "n k h w"]
    attention: Float[np.ndarray, "n k gh gw"]
    """Attention maps on the encoder's grid, softmax over slots."""


def save_evaluation(folder: Path, evaluation: Evaluation, panels: Panels) -> None:
    """Write `scores.json` and `panels.npz` into `folder`, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: getattr(panels, name)
        for name in Panels.__dataclass_fields__
        if name != "names" and getattr(panels, name) is not None
    }
    archive = io.BytesIO()
    np.savez_compressed(archive, names=np.array(panels.names), **arrays)
    write_whole(folder / "panels.npz", archive.getvalue())
    # scores last: a folder with scores has its panels too
    scores = msgspec.json.format(msgspec.json.encode(evaluation), indent=2)
    write_whole(folder / "scores.json", scores)


def load_evaluation(folder: Path) -> Evaluation:
    """Read back what `save_evaluation` wrote.

    Raises FileNotFoundError: no `scores.json` in `folder`. msgspec.ValidationError: the file holds
    something else.
    """
    return msgspec.json.decode((folder / "scores.json").read_bytes(), type=Evaluation)


def find_evaluation(folder: Path) -> Evaluation | None:
    """The evaluation in `folder`, or None where there is none that can be read."""
    try:
        return load_evaluation(folder)
    except (FileNotFoundError, *NO_JSON):
        return None


def load_panels(folder: Path) -> Panels:
    """Read back the arrays of `save_evaluation`.

    Raises ValueError: they are not of one evaluation; other errors of NumPy for damage.
    """
    # opened here: np.load would leave a damaged file open
    with (folder / "panels.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        fields = {name: arrays[name] for name in arrays.files if name != "names"}
        panels = Panels(
            names=[str(n) for n in arrays["names"]], truth=fields.pop("truth", None), **fields
        )
    if not _fit_together(panels):
        raise ValueError("the arrays are not those of one evaluation")
    return panels


def _fit_together(panels: Panels) -> bool:
    n, k, h, w = panels.alphas.shape
    drawn = (panels.frames, panels.reconstruction, panels.predicted, panels.untrained)
    pictures = [*((picture, (n, h, w, 3)) for picture in drawn), (panels.slots, (n, k, h, w, 3))]
    if panels.truth is not None:
        pictures.append((panels.truth, (n, h, w)))
    return (
        n == len(panels.names) > 0
        and all(picture.dtype == np.uint8 and picture.shape == shape for picture, shape in pictures)
        and panels.attention.shape[:2] == (n, k)
        and all(bool(np.isfinite(shares).all()) for shares in (panels.alphas, panels.attention))
    )
