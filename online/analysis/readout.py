"""Frame by frame, what a trained model and its probe read from recordings.

frames ──encode──▶ slots ──probe──▶ reconstruction, alphas
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ingest.frame import Frames
from online.clips.catalog import FrameSource
from online.clips.clip import Interval
from online.training.batch import to_bytes, to_images
from setcon.model import SetCon
from setcon.probe import DecoderProbe

FRAMES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Consecutive frames of a recording, from number `start` on, and what was read from them."""

    start: int
    frames: Frames
    slots: Float[np.ndarray, "n k d"]
    reconstruction: UInt8[np.ndarray, "n h w 3"] | None
    alphas: Float[np.ndarray, "n k h w"] | None
    """Shares of each pixel; over k they sum to one. None without a probe, as the reconstruction."""


class Readout:
    """Reads any frames of one source."""

    def __init__(
        self,
        model: SetCon,
        probe: DecoderProbe | None,
        source: FrameSource,
        *,
        device: torch.device,
    ) -> None:
        self.source = source
        self._model = model.eval()
        self._probe = probe
        self._device = device

    def read(self, recording: str, interval: Interval) -> Iterator[Read]:
        """Frames of an interval, some at a time.

        Raises IndexError: frames outside the committed range; IngestError: they cannot be read.
        """
        for start in range(interval.start, interval.stop, FRAMES_AT_ONCE):
            length = min(FRAMES_AT_ONCE, interval.stop - start)
            yield self._read(start, self.source.fetch(recording, start, length))

    @torch.no_grad()
    def _read(self, start: int, frames: Frames) -> Read:
        slots = self._model.encode(to_images(frames.images).to(self._device)).slots
        drawn = self._probe(slots) if self._probe is not None else None
        return Read(
            start=start,
            frames=frames,
            slots=slots.float().cpu().numpy(),
            reconstruction=to_bytes(drawn.image) if drawn else None,
            alphas=drawn.alphas.squeeze(2).float().cpu().numpy() if drawn else None,
        )
