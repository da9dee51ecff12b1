"""A decoder that reads each slot in its object's own coordinates.

    u = (position - centre) / spread                 of an object; of the background, the position
    channel_c(slot, position) = wanted_c(slot) · maps(u) / sqrt(rank) + bias_c(slot)

A slot that starts at an object begins with its centre and spread, so that the decoder need not find
out where it is; what an object looks like is then the same wherever it goes. A slot that no object
is left for draws nothing.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from setcon.config import DecoderConfig
from setcon.decoders.whole import image_by_image
from setcon.layers import mlp
from setcon.position import fourier_features
from setcon.slots.object_slots import GEOMETRY

_REACH = 4.0  # spreads from the centre; what is further away is all the same
_LEAST_SPREAD = 1e-3  # of the picture: a slot that holds an object is larger
_NOTHING = -20.0
"""Logit of the alpha of a slot without an object."""


class ObjectDecoder(nn.Module):
    """Slots that start at objects to their parts of the image."""

    def __init__(self, config: DecoderConfig, slot_size: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.frequencies, self.rank = config.frequencies, config.rank
        self.norm = nn.LayerNorm(slot_size - GEOMETRY)
        wanted = 4 * (config.rank + 1)
        self.from_slot = mlp([slot_size, *[hidden] * config.depth, wanted])
        self.from_background = mlp([slot_size, *[hidden] * config.depth, wanted])
        features = 2 + 4 * config.frequencies
        self.maps = mlp([features, hidden, config.rank])
        self.background_maps = mlp([features, hidden, config.rank])

    def at(
        self, slots: Float[Tensor, "n k d"], positions: Float[Tensor, "q 2"]
    ) -> Float[Tensor, "n k 4 q"]:
        """The channels at q positions (y, x in [0, 1]), the same in each image."""
        where, content = slots[..., :GEOMETRY], self.norm(slots[..., GEOMETRY:])
        read = torch.cat([where, content], dim=-1)
        maps = self.background_maps(fourier_features(positions, frequencies=self.frequencies))
        channels = slots.new_zeros(*slots.shape[:2], 4, len(positions))
        channels[:, :, 3] = _NOTHING
        channels[:, 0] = self._drawn(self.from_background(read[:, 0]), maps)
        image, slot = self._objects(where)
        if len(image):
            own = _own_coordinates(where[image, slot], positions)
            maps = self.maps(fourier_features(own, frequencies=self.frequencies))
            channels[image, slot] = self._drawn(self.from_slot(read[image, slot]), maps)
        return channels

    def forward(
        self, slots: Float[Tensor, "n k d"], height: int, width: int
    ) -> Float[Tensor, "n k 4 h w"]:
        """The channels of a whole image."""
        return image_by_image(self.at, slots, height, width)

    def _objects(
        self, where: Float[Tensor, "n k 4"]
    ) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
        """Image and slot of every object."""
        held: Bool[Tensor, "n k"] = where[..., 2:].amax(dim=-1) > _LEAST_SPREAD
        held[:, 0] = False
        image, slot = held.nonzero(as_tuple=True)
        return image, slot

    def _drawn(
        self, wanted: Float[Tensor, "m {4*(self.rank+1)}"], maps: Float[Tensor, "*m q r"]
    ) -> Float[Tensor, "m 4 q"]:
        weights, bias = wanted.unflatten(-1, (4, self.rank + 1)).split([self.rank, 1], dim=-1)
        return weights @ maps.transpose(-1, -2) * self.rank**-0.5 + bias


def _own_coordinates(
    where: Float[Tensor, "m 4"], positions: Float[Tensor, "q 2"]
) -> Float[Tensor, "m q 2"]:
    """Positions from an object's centre in units of its spread, as 0..1 within its reach."""
    centre, spread = where[:, None, :2], where[:, None, 2:].clamp_min(_LEAST_SPREAD)
    reached = ((positions - centre) / spread).clamp(-_REACH, _REACH)
    return reached / (2 * _REACH) + 0.5
