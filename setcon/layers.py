"""What every network here is made with: an MLP, a normalisation of choice, and full precision."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from setcon.config import GROUPS, Activation, Normalisation

Total = Callable[[Tensor], Tensor]
"""The sum of a count over all processes that share a batch."""


def alone(count: Tensor) -> Tensor:
    """The total of a process that shares its batch with no other."""
    return count


def mlp(sizes: Sequence[int], *, activation: Activation = "relu") -> nn.Sequential:
    """Linear layers through `sizes`, with the activation between them and none at the end."""
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.ELU() if activation == "elu" else nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def normalisation_layer(normalisation: Normalisation, channels: int) -> nn.Module:
    """BatchNorm, GroupNorm, or a layer that changes nothing."""
    if normalisation == "batch":
        return nn.BatchNorm2d(channels)
    if normalisation == "group":
        return nn.GroupNorm(GROUPS, channels)
    return nn.Identity()


def at_least_float32(tensor: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The same numbers in float32, or in float64 where they are float64 already."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
