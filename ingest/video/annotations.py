"""Masks that people have made: which frames they are of, by the names of frames, and their labels.

A frame of an image folder is found by its name without the suffix. A frame of a video has no name:
there, the number in the name of an annotation counts frames (`NumberedMasks`).
"""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ingest.decoding.scaling import FitPlan
from ingest.errors import VideoError
from ingest.frame import UNKNOWN_LABEL
from ingest.video.paths import MASK_SUFFIX, label_files

_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
MOST_LABELS = UNKNOWN_LABEL - 1


@runtime_checkable
class Annotations(Protocol):
    """Label maps of some frames, upright, as large as the pictures that they are of."""

    name: str
    """How messages call them."""
    frames: list[str]
    """Names of the frames that have one, without folder and suffix."""

    def labels(self, frame: str) -> UInt8[np.ndarray, "h w"]:
        """Label map of a frame: 0 is background, `UNKNOWN_LABEL` is not known."""
        ...


class LabelPictures:
    """A PNG for each annotated frame: a palette's index or a grey value is a label.

    Where all pictures are of 0 and 255 alone, in grey, each is the mask of one object; otherwise
    255 is not known.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._files = {path.stem.removesuffix(MASK_SUFFIX): path for path in label_files(folder)}
        self.frames = list(self._files)

    def labels(self, frame: str) -> UInt8[np.ndarray, "h w"]:
        """Read one picture; VideoError where it has no labels."""
        labels, is_binary = self._read(frame)
        if is_binary and labels.any() and self._is_binary:
            return (labels != 0).astype(np.uint8)
        return labels

    @cached_property
    def _is_binary(self) -> bool:
        return all(self._read(frame)[1] for frame in self.frames)

    def _read(self, frame: str) -> tuple[UInt8[np.ndarray, "h w"], bool]:
        """Labels as they are, and whether they could be the mask of one object."""
        path = self._files[frame]
        try:
            with Image.open(path) as image:
                labels = _labels(image, path)
                return labels, image.mode != "P" and bool(np.isin(labels, (0, 255)).all())
        except _PILLOW_ERRORS as error:
            raise VideoError(f"{path}: does not decode ({error}); make it again") from error


class NumberedMasks:
    """Annotations of a video, whose numbers count its frames from 0, or from 1 if that is the
    first: one for each frame, or for some of them."""

    counts_frames = True

    def __init__(self, annotations: Annotations, *, frames: int, height: int, width: int) -> None:
        """`frames` is how many the video has; `height` and `width` are those of its pictures."""
        self._annotations = annotations
        self._shape = (height, width)
        numbers = {_number(annotations, frame): frame for frame in annotations.frames}
        first = 1 if min(numbers, default=0) == 1 else 0
        self._frames = {number - first: frame for number, frame in numbers.items()}
        if self._frames and max(self._frames) >= frames:
            raise VideoError(
                f"{annotations.name}: has an annotation {numbers[max(numbers)]!r}, the video has "
                f"{frames} frames; name the masks that belong to it"
            )

    def row(self, *, pts_ns: int | None, index: int) -> int:
        """The frame itself: what is counted is frames."""
        return index

    def gap(self, row: int) -> bool:
        """Annotations say nothing of episodes."""
        return False

    def placed(self, row: int, plan: FitPlan) -> UInt8[np.ndarray, "h w"]:
        """Label map of a frame as its image is fitted; not known where there is none."""
        frame = self._frames.get(row)
        height, width = self._shape
        upright = (width, height) if plan.quarter_turns % 2 else (height, width)
        return placed_labels(self._annotations, frame, plan, shape=upright)

    def close(self) -> None:
        """Nothing stays open."""


def placed_labels(
    annotations: Annotations, frame: str | None, plan: FitPlan, *, shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w"]:
    """Label map of a frame, fitted as its picture, which has `shape` (h, w) upright.

    Not known without a frame. Raises VideoError where it is not as large as the picture.
    """
    if frame is None:
        return np.full((plan.height, plan.width), UNKNOWN_LABEL, np.uint8)
    labels = annotations.labels(frame)
    if labels.shape != shape:
        raise VideoError(
            f"{annotations.name}: the annotation {frame!r} is {labels.shape[1]}x{labels.shape[0]}, "
            f"its picture {shape[1]}x{shape[0]}; name masks that were made of these pictures"
        )
    return plan.turned().place_nearest(labels)


def check_frames(annotations: Annotations, frames: Iterable[str], source: str) -> None:
    """Refuse annotations of pictures that a source does not have."""
    missing = sorted(set(annotations.frames) - set(frames))
    if missing or not annotations.frames:
        found = f"has an annotation {missing[0]!r} of" if missing else "has no annotation of"
        raise VideoError(
            f"{annotations.name}: {found} no picture in {source}; name the masks that belong to it"
        )


def _labels(image: Image.Image, path: Path) -> UInt8[np.ndarray, "h w"]:
    if image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        labels = np.asarray(image)
    else:
        labels = np.asarray(image.convert("RGB"))
        if np.ptp(labels, axis=2).any():
            raise VideoError(
                f"{path}: a picture in colours ({image.mode}); annotations are pictures with a "
                "palette, or grey ones whose values are labels"
            )
        labels = labels[..., 0]
    if labels.max() > UNKNOWN_LABEL:
        raise VideoError(
            f"{path}: label {labels.max()}; number objects from 1 to {MOST_LABELS}, in 8 bits"
        )
    return labels.astype(np.uint8)


def _number(annotations: Annotations, frame: str) -> int:
    digits = re.findall(r"\d+", frame)
    if not digits:
        raise VideoError(
            f"{annotations.name}: no number in the name of the annotation {frame!r}; name them by "
            "the number of their frame, such as 00000.png"
        )
    return int(digits[-1])
