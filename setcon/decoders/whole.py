"""Whole images from decoders that draw any positions."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from setcon.position import position_grid


def image_by_image(
    at: Callable[[Tensor, Tensor], Tensor], slots: Float[Tensor, "n k d"], height: int, width: int
) -> Float[Tensor, "n k 4 h w"]:
    """What `at` draws of slots at every position, one image at a time.

    The hidden units of all positions of an image of 128x128 are tens of megabytes.
    """
    grid = position_grid(height, width, device=slots.device).to(slots.dtype)
    channels = torch.cat([at(image_slots, grid) for image_slots in slots.split(1)])
    return channels.unflatten(-1, (height, width))
