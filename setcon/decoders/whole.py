"""Whole images from decoders that draw any positions."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def image_by_image(
    draw: Callable[[Tensor], Tensor], slots: Float[Tensor, "n k d"], height: int, width: int
) -> Float[Tensor, "n k 4 h w"]:
    """What `draw` makes of the slots of one image (1, k, d), at every position row by row, for all.

    What it takes for an image of 128x128 on the way can be tens of megabytes.
    """
    channels = torch.cat([draw(image_slots) for image_slots in slots.split(1)])
    return channels.unflatten(-1, (height, width))
