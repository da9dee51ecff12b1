"""Frames to slots as a program that runs without this package, by `torch.export`."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from setcon.model import SetCon
from setcon.slots.slot_attention import SlotAttention

MOST_IMAGES = 4096
"""In one call of an exported program."""


class _Encoder(nn.Module):
    def __init__(self, model: SetCon) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.slot_attention = model.slot_attention

    def forward(
        self, images: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n k d"], Float[Tensor, "n k p"]]:
        found = self.slot_attention(self.encoder(images))
        return found.slots, found.attention


def export_encoder(model: SetCon, *, height: int, width: int) -> ExportedProgram:
    """Images (n, 3, height, width) in [0, 1] to slots (n, k, d) and attention (n, k, p).

    The program takes any n, and no other size. `torch.export.save` writes it to a file.

    Raises TypeError: slots that start at objects are found by code that is not torch's.
    """
    if not isinstance(model.slot_attention, SlotAttention):
        raise TypeError(
            "slots that start at objects cannot be exported: supervoxels are found by NumPy; "
            "use model.encode"
        )
    # a copy on the CPU in the plain layout: `torch.export.save` takes others for parts of tensors
    encoder = copy.deepcopy(_Encoder(model)).cpu().eval()
    encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.zeros(2, 3, height, width)
    number = Dim("n", min=1, max=MOST_IMAGES)
    return torch.export.export(encoder, (example,), dynamic_shapes=({0: number},))
