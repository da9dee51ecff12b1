"""One frame, and a run of frames of one recording in time order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8

UNKNOWN_LABEL = 255
"""Label of pixels, and of whole frames, that are not annotated: they are not scored."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One RGB image with its time."""

    image: UInt8[np.ndarray, "h w 3"]
    pts_ns: int
    """Presentation time in nanoseconds on the source's own clock; grows strictly."""
    gap: bool
    """True when this frame does not continue the one before it: no triplet crosses it."""
    captured_ns: int | None = None
    """Wall clock at capture in nanoseconds since 1970; None for files."""
    masks: UInt8[np.ndarray, "h w"] | None = None
    """Object label per pixel: 0 is background, 1.. are objects, `UNKNOWN_LABEL` is not known; None
    where the recording has no masks."""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A run of frames of one recording, in time order."""

    images: UInt8[np.ndarray, "n h w 3"]
    pts_ns: Int64[np.ndarray, " n"]
    gap: Bool[np.ndarray, " n"]
    captured_ns: Int64[np.ndarray, " n"] | None = None
    masks: UInt8[np.ndarray, "n h w"] | None = None

    def __len__(self) -> int:
        return len(self.pts_ns)

    @classmethod
    def stack(cls, frames: Sequence[Frame]) -> "Frames":
        """Copy single frames into one run; an optional field is kept where every frame has it."""
        captured = [frame.captured_ns for frame in frames if frame.captured_ns is not None]
        masks = [frame.masks for frame in frames if frame.masks is not None]
        return cls(
            images=np.stack([frame.image for frame in frames]),
            pts_ns=np.array([frame.pts_ns for frame in frames], np.int64),
            gap=np.array([frame.gap for frame in frames], np.bool_),
            captured_ns=np.array(captured, np.int64) if len(captured) == len(frames) else None,
            masks=np.stack(masks) if len(masks) == len(frames) else None,
        )

    @classmethod
    def join(cls, runs: Sequence["Frames"]) -> "Frames":
        """Copy consecutive runs into one; an optional field is kept where every run has it."""
        captured = [run.captured_ns for run in runs if run.captured_ns is not None]
        masks = [run.masks for run in runs if run.masks is not None]
        return cls(
            images=np.concatenate([run.images for run in runs]),
            pts_ns=np.concatenate([run.pts_ns for run in runs]),
            gap=np.concatenate([run.gap for run in runs]),
            captured_ns=np.concatenate(captured) if len(captured) == len(runs) else None,
            masks=np.concatenate(masks) if len(masks) == len(runs) else None,
        )

    def part(self, start: int, stop: int) -> "Frames":
        """Frames start..stop as views, without copying."""
        return Frames(
            images=self.images[start:stop],
            pts_ns=self.pts_ns[start:stop],
            gap=self.gap[start:stop],
            captured_ns=None if self.captured_ns is None else self.captured_ns[start:stop],
            masks=None if self.masks is None else self.masks[start:stop],
        )

    def room_for(self, length: int) -> "Frames":
        """Room for `length` frames like these, to `fill`."""

        def room(values: np.ndarray) -> np.ndarray:
            return np.empty((length, *values.shape[1:]), values.dtype)

        return Frames(
            images=room(self.images),
            pts_ns=room(self.pts_ns),
            gap=room(self.gap),
            captured_ns=None if self.captured_ns is None else room(self.captured_ns),
            masks=None if self.masks is None else room(self.masks),
        )

    def fill(self, frames: "Frames") -> None:
        """Copy `frames` here, which are as many, and have what these have."""
        for into, values in zip(self._fields(), frames._fields(), strict=True):
            into[:] = values

    def _fields(self) -> list[np.ndarray]:
        found = (self.images, self.pts_ns, self.gap, self.captured_ns, self.masks)
        return [values for values in found if values is not None]
