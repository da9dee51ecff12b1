"""A model with slots that start at objects, which takes whatever is coloured for an object."""

import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Float
from torch import Tensor

from setcon.config import EncoderConfig, SetConConfig, SlotAttentionConfig
from setcon.model import SetCon


class _Coloured(torch.nn.Module):
    """Features of cells: their colour, and how far it is from grey."""

    feature_size = 4

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p 4"]:
        cells = F.avg_pool2d(images, 4).flatten(2).transpose(1, 2)
        strength = cells.amax(dim=-1, keepdim=True) - cells.amin(dim=-1, keepdim=True)
        return torch.cat([cells, strength], dim=-1)


def object_model(**slots: int | float) -> SetCon:
    """A small one, as it is before it has learned anything."""
    torch.manual_seed(0)
    sizes = {"num_slots": 5, "slot_size": 12, "hidden_size": 16} | slots
    return SetCon(
        SetConConfig(
            encoder=EncoderConfig(kind="dilated", width=8, normalisation="group"),
            slot_attention=SlotAttentionConfig(starts="objects", **sizes),  # type: ignore[arg-type]
        )
    )


def coloured_model(**slots: int | float) -> SetCon:
    """One whose foreground is what is coloured."""
    model = object_model(**slots)
    model.encoder = _Coloured()  # type: ignore[assignment]
    attention = model.slot_attention
    attention.norm_inputs = torch.nn.LayerNorm(4)
    attention.to_values = torch.nn.Linear(7, model.config.slot_attention.slot_size)
    attention.foreground = torch.nn.Linear(4, 1)
    with torch.no_grad():
        attention.foreground.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 40.0]]))
        attention.foreground.bias.fill_(-8.0)
    return model
