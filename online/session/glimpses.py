"""Pictures of the newest frame while a run learns, for `setcon watch` and for the report.

newest clip ─▶ one pass of the encoder, without gradient ─▶ newest.npz

A picture is due when the time that the last one took has been earned back: all of them together
take `training.picture_share` of the time of learning, whatever the model and the machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from online.clips.clip import Clip
from online.runs.directory import RunDirectory
from online.runs.glimpse import Glimpse, save_glimpse
from online.training.batch import to_images
from online.training.pieces import Pieces
from online.training.trainer import Trainer
from setcon.supervoxels.objects import segments as outlined
from setcon.supervoxels.supervoxels import Supervoxels

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
"""Least time between two pictures."""


class Glimpses:
    """Keeps the picture of a run's newest frame."""

    def __init__(
        self,
        directory: RunDirectory,
        trainer: Trainer,
        pieces: Pieces,
        *,
        share: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`share` is of the time; with 0, and where another process writes, there are none."""
        self._directory = directory
        self._trainer = trainer
        self._pieces = pieces
        self._share = share if directory.writes else 0.0
        self._now = now
        self._due = now()
        self._has_failed = False
        self.taken = 0
        self.seconds = 0.0
        """What all pictures of this start took."""

    def stepped(self, newest: Clip | None) -> None:
        """A step was taken; picture the last frame of the `newest` clip if that is due."""
        if newest is not None and self._share and self._now() >= self._due:
            self.take(newest)

    def take(self, newest: Clip | None) -> None:
        """Picture the last frame of the `newest` clip, due or not."""
        if newest is None or not self._share:
            return
        began = self._now()
        try:
            save_glimpse(self._directory.newest_path, self._glimpse(newest))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                path = self._directory.newest_path
                log.warning("%s: cannot be written (%s); the run goes on", path, error)
        ended = self._now()
        self.taken += 1
        self.seconds += ended - began
        self._due = ended + max(EVERY_SECONDS, (ended - began) / self._share)

    @torch.no_grad()
    def _glimpse(self, clip: Clip) -> Glimpse:
        model, frames = self._trainer.evaluated.eval(), clip.frames
        pieces = self._pieces.of(clip) if model.config.finds_objects else None
        # objects are found in a run of frames; any other slots in the frame alone
        images = frames.images[-1:] if pieces is None else frames.images
        shares = self._trainer.attention(to_images(images), pieces=pieces)[-1].float().cpu()
        attention = shares.unflatten(-1, model.encoder.grid_size(*images.shape[1:3]))
        segments = None
        if pieces is not None:
            segments = _segments(images[-1], pieces, attention.argmax(dim=0))
        return Glimpse(
            step=self._trainer.step_count,
            recording=clip.spec.recording,
            frame_seconds=float(frames.pts_ns[-1]) / 1e9,
            frame=images[-1],
            attention=(attention * 255).round().to(torch.uint8).numpy(),
            segments=segments,
        )


def _segments(
    image: UInt8[np.ndarray, "h w 3"], pieces: Supervoxels, slots: Int64[Tensor, "r c"]
) -> UInt8[np.ndarray, "h w"]:
    """The slot of each pixel of a run's last frame, of whose cells they are known."""
    labels = pieces.labels[-1:]
    objects = torch.zeros(len(pieces), dtype=torch.int64)
    objects[labels.flatten()] = slots.flatten()
    last = torch.from_numpy(image[None].copy())
    return outlined(last, labels, objects)[0].numpy().astype(np.uint8)
