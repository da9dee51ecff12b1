"""How frames go through a model: on what device, in what memory layout, and with what precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import BFloat16, Float, UInt8
from torch import Tensor

from online.training.batch import as_floats
from online.training.config import TrainingConfig
from online.training.models import layout, uses_bfloat16, weight_dtype
from setcon.encoders.timm_encoder import TimmEncoder
from setcon.model import SetCon
from setcon.slots.slot_attention import Slots
from setcon.supervoxels.supervoxels import Supervoxels

Maps = Sequence[Float[Tensor, "b t _c _r _s"]]
"""What the layers of a frozen encoder make of runs of frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """That of training, which a model that is looked at meanwhile goes through as well."""

    device: torch.device
    layout: torch.memory_format
    dtype: torch.dtype
    """Of weights, and of images."""
    bfloat16: bool
    """Whether the encoder multiplies in it."""

    @classmethod
    def of(cls, training: TrainingConfig, device: torch.device) -> Arithmetic:
        """What a run is configured for."""
        return cls(
            device=device,
            layout=layout(training),
            dtype=weight_dtype(training),
            bfloat16=uses_bfloat16(training.precision, device),
        )

    @property
    def precision(self) -> str:
        """Its name."""
        return "bfloat16" if self.bfloat16 else str(self.dtype).removeprefix("torch.")

    def encode(
        self,
        model: SetCon,
        frames: Float[Tensor, "b t c h w"],
        *,
        pieces: Sequence[Supervoxels] | None = None,
        outlines: bool = False,
        maps: Maps | None = None,
    ) -> Slots:
        """`SetCon.encode` of runs of frames."""
        with self._autocast():
            return model.encode(
                self._images(frames),
                run_length=frames.shape[1],
                pieces=pieces,
                outlines=outlines,
                maps=self._moved(maps),
            )

    def maps(
        self, model: SetCon, images: UInt8[Tensor, "t h w 3"]
    ) -> tuple[BFloat16[Tensor, "t _c _r _s"], ...]:
        """What the layers of a frozen encoder make of images, on the CPU."""
        assert isinstance(model.encoder, TimmEncoder)
        with torch.no_grad(), self._autocast():
            maps = model.encoder.maps(self._images(as_floats(images)[None]))
        return tuple(each.cpu() for each in maps)

    def foreground_loss(
        self,
        model: SetCon,
        frames: UInt8[Tensor, "b t h w 3"],
        truth: Float[Tensor, "n p"],
        *,
        maps: Maps | None,
        total: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, ""]:
        """`SetCon.foreground_loss` of runs of frames."""
        with self._autocast():
            return model.foreground_loss(
                self._images(as_floats(frames)), truth, maps=self._moved(maps), total=total
            )

    def _moved(self, maps: Maps | None) -> list[Float[Tensor, "n _c _r _s"]] | None:
        return None if maps is None else [each.flatten(0, 1).to(self.device) for each in maps]

    def _images(self, frames: Float[Tensor, "b t c h w"]) -> Float[Tensor, "n c h w"]:
        images = frames.flatten(0, 1).to(self.device, self.dtype)
        return images.contiguous(memory_format=self.layout)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)
