"""Frame by frame, what a trained model and its probe read from recordings.

frames ──encode──▶ slots ──probe──▶ reconstruction, alphas
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ingest.frame import Frames
from online.analysis.tracks import Tracks
from online.clips.catalog import FrameSource
from online.clips.clip import Interval
from online.training.batch import to_bytes, to_images
from setcon.model import SetCon
from setcon.probe import DecoderProbe

FRAMES_AT_ONCE = 16
SHARED = 8
"""Frames that are read again with the next ones, so that objects are followed."""


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Consecutive frames of a recording, from number `start` on, and what was read from them."""

    start: int
    frames: Frames
    slots: Float[np.ndarray, "n k d"]
    reconstruction: UInt8[np.ndarray, "n h w 3"] | None
    alphas: Float[np.ndarray, "n k h w"] | None
    """Shares of each pixel; over k they sum to one. None without a probe, as the reconstruction."""
    attention: Float[np.ndarray, "n k gh gw"] | None = None
    """Shares of each position of the encoder's grid; over k they sum to one."""
    segments: Int64[np.ndarray, "n h w"] | None = None
    """The slot of each pixel, where slots start at objects."""
    objects: Int64[np.ndarray, "n k"] | None = None
    """The number of each slot's object, which it keeps through the recording; 0 is the background,
    -1 a slot that holds none."""


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
        followed = _Followed(self._model) if self._model.config.finds_objects else None
        for start in range(interval.start, interval.stop, FRAMES_AT_ONCE):
            length = min(FRAMES_AT_ONCE, interval.stop - start)
            frames = self.source.fetch(recording, start, length)
            yield self._read(start, frames, followed)

    @torch.no_grad()
    def _read(self, start: int, frames: Frames, followed: _Followed | None) -> Read:
        segments = numbers = attention = None
        if followed is None:
            encoded = self._model.encode(to_images(frames.images).to(self._device))
            slots = encoded.slots
            grid = self._model.encoder.grid_size(*frames.images.shape[1:3])
            attention = encoded.attention.unflatten(-1, grid).float().cpu().numpy()
        else:  # whose attention is their segments, of whole cells
            slots, segments, numbers = followed.next(frames, self._device)
        drawn = self._probe(slots) if self._probe is not None else None
        return Read(
            start=start,
            frames=frames,
            slots=slots.float().cpu().numpy(),
            reconstruction=to_bytes(drawn.image) if drawn else None,
            alphas=drawn.alphas.squeeze(2).float().cpu().numpy() if drawn else None,
            attention=attention,
            segments=segments,
            objects=numbers,
        )


class _Followed:
    """Reads frames in order, with slots that keep their object from one block to the next."""

    def __init__(self, model: SetCon) -> None:
        self._model = model
        self._tracks = Tracks(model.config.slot_attention.num_slots)
        self._images: UInt8[np.ndarray, "n h w 3"] | None = None
        self._segments: Int64[np.ndarray, "n h w"] | None = None

    def next(
        self, frames: Frames, device: torch.device
    ) -> tuple[Float[Tensor, "n k d"], Int64[np.ndarray, "n h w"], Int64[np.ndarray, "n k"]]:
        """Slots, segments, and the number of each slot's object, of the frames that follow."""
        edges = [0, *np.flatnonzero(frames.gap[1:]) + 1, len(frames)]
        parts = []
        for first, last in pairwise(edges):
            if frames.gap[first]:
                self._images = self._segments = None
            parts.append(self._run(frames, slice(first, last), device))
        slots, segments, numbers = zip(*parts, strict=True)
        return torch.cat(slots), np.concatenate(segments), np.concatenate(numbers)

    def _run(
        self, frames: Frames, part: slice, device: torch.device
    ) -> tuple[Float[Tensor, "n k d"], Int64[np.ndarray, "n h w"], Int64[np.ndarray, "n k"]]:
        images = frames.images[part]
        known = 0 if self._images is None else len(self._images)
        window = images if self._images is None else np.concatenate([self._images, images])
        encoded = self._model.encode(to_images(window).to(device), run_length=len(window))
        assert encoded.segments is not None
        segments = encoded.segments.numpy()
        held = (encoded.attention.sum(dim=-1) > 0).cpu().numpy()
        order = self._tracks.follow(self._segments, segments[:known], np.asarray(held.any(axis=0)))
        slots = torch.empty_like(encoded.slots)
        slots[:, torch.from_numpy(order)] = encoded.slots
        segments = order[segments]
        present = np.empty_like(held)
        present[:, order] = held
        numbers = np.where(present, self._tracks.numbers, -1)
        self._images, self._segments = window[-SHARED:], segments[-SHARED:]
        return slots[known:], segments[known:], numbers[known:]
