"""A decoder that reads each slot in its object's own coordinates.

    u = (position - centre) / spread                 of an object; of the background, the position
    channel_c(slot, position) = wanted_c(slot) · maps(u) / sqrt(rank) + bias_c(slot)

A slot that starts at an object begins with its centre and spread, so that the decoder need not find
out where it is; what an object looks like is then the same wherever it goes. A slot that no object
is left for draws nothing. The other numbers of a slot are standardised first, over the slots that
the decoder is fitted to: some vary a hundred times less than others, but carry as much information.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from setcon.config import GEOMETRY, DecoderConfig
from setcon.decoders.whole import image_by_image
from setcon.layers import mlp
from setcon.position import fourier_features, own_coordinates, position_grid

_REACH = 4.0  # spreads from the centre; what is further away is all the same
_LEAST_DEVIATION = 1e-4
_NOTHING = -20.0
"""Logit of the alpha of a slot without an object."""


class ObjectDecoder(nn.Module):
    """Slots that start at objects to their parts of the image."""

    mean: Tensor
    """Of the background's slots, and of those of objects."""
    scale: Tensor

    def __init__(self, config: DecoderConfig, slot_size: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.frequencies, self.rank = config.frequencies, config.rank
        self.register_buffer("mean", torch.zeros(2, slot_size - GEOMETRY))
        self.register_buffer("scale", torch.ones(2, slot_size - GEOMETRY))
        self.norm = nn.LayerNorm(slot_size - GEOMETRY)
        wanted = 4 * (config.rank + 1)
        self.from_slot = mlp([slot_size, *[hidden] * config.depth, wanted])
        self.from_background = mlp([slot_size, *[hidden] * config.depth, wanted])
        features = 2 + 4 * config.frequencies
        self.maps = mlp([features, hidden, config.rank])
        self.background_maps = mlp([features, hidden, config.rank])

    @torch.no_grad()
    def fit(self, slots: Float[Tensor, "n k d"]) -> None:
        """Standardise by mean and deviation of these slots, background and objects apart."""
        held = self._held(slots)
        for kind, content in enumerate((slots[:, 0, GEOMETRY:], slots[..., GEOMETRY:][held])):
            if len(content):
                deviation, mean = torch.std_mean(content, dim=0, correction=0)
                self.mean[kind] = mean
                varies = deviation > _LEAST_DEVIATION  # of the rest, a drift would be magnified
                self.scale[kind] = torch.where(varies, 1 / deviation, 1.0)

    def at(
        self, slots: Float[Tensor, "n k d"], positions: Float[Tensor, "q 2"]
    ) -> Float[Tensor, "n k 4 q"]:
        """The channels at q positions (y, x in [0, 1]), the same in each image."""

        def mix(weights: Tensor, where: Tensor) -> Tensor:
            own = _own_coordinates(positions, where[:, None])
            hidden = self.maps[:-1](fourier_features(own, frequencies=self.frequencies))
            return (hidden @ weights.transpose(-1, -2)).transpose(-1, -2)

        return self._channels(slots, self._background_maps(positions), mix)

    def forward(
        self, slots: Float[Tensor, "n k d"], height: int, width: int
    ) -> Float[Tensor, "n k 4 h w"]:
        """The channels of a whole image."""
        grid = position_grid(height, width, like=slots)
        background = self._background_maps(grid)
        y, x = grid[::width, 0], grid[:width, 1]

        def mix(weights: Tensor, where: Tensor) -> Tensor:
            pairs = zip(weights, where, strict=True)
            return torch.stack([self._mix_on_grid(one, place, y, x) for one, place in pairs])

        draw = partial(self._channels, background_maps=background, mix=mix)
        return image_by_image(draw, slots, height, width)

    def _channels(
        self,
        slots: Float[Tensor, "n k d"],
        background_maps: Float[Tensor, "q r"],
        mix: Callable[[Tensor, Tensor], Tensor],
    ) -> Float[Tensor, "n k 4 q"]:
        """Every slot's channels.

        `mix(weights, where)` applies weights (m, 4, hidden) to the hidden units that m objects with
        the centres and spreads `where` (m, 4) have at the q positions, and gives (m, 4, q).
        """
        where, content = slots[..., :GEOMETRY], slots[..., GEOMETRY:]
        background = (content[:, :1] - self.mean[0]) * self.scale[0]
        objects = (content[:, 1:] - self.mean[1]) * self.scale[1]
        read = torch.cat([where, self.norm(torch.cat([background, objects], dim=1))], dim=-1)
        channels = slots.new_zeros(*slots.shape[:2], 4, len(background_maps))
        channels[:, :, 3] = _NOTHING
        weights, bias = self._wanted(self.from_background(read[:, 0]))
        channels[:, 0] = weights @ background_maps.T + bias
        image, slot = self._held(slots).nonzero(as_tuple=True)
        if len(image):
            weights, bias = self._wanted(self.from_slot(read[image, slot]))
            # four channels of the last layer cost less than its maps at each object's positions
            last = _linear(self.maps, -1)
            channels[image, slot] = (
                mix(weights @ last.weight, where[image, slot])
                + (weights @ last.bias).unsqueeze(-1)
                + bias
            )
        return channels

    def _background_maps(self, positions: Float[Tensor, "q 2"]) -> Float[Tensor, "q r"]:
        return self.background_maps(fourier_features(positions, frequencies=self.frequencies))

    def _mix_on_grid(
        self,
        weights: Float[Tensor, "4 c"],
        where: Float[Tensor, " 4"],
        y: Float[Tensor, " h"],
        x: Float[Tensor, " w"],
    ) -> Float[Tensor, "4 h*w"]:
        """`weights` applied to an object's hidden units on a grid.

        The first layer is a sum of one part per row and one per column. Rows and columns out of
        reach share one value, which is computed once, with the gradient of the first of them.
        """
        first, frequencies = _linear(self.maps, 0), self.frequencies
        waves = first.weight[:, 2:].unflatten(1, (2, 2, frequencies))  # sine and cosine; y and x
        parts, places = [], []
        for axis, along in enumerate((y, x)):
            own = _own_coordinates(along, where[axis::2])
            _, place = own.detach().unique_consecutive(return_inverse=True)
            own = own[place.diff(prepend=place.new_tensor([-1])) > 0]
            weight = torch.cat([first.weight[:, axis, None], waves[:, :, axis].flatten(1)], dim=1)
            parts.append(fourier_features(own[:, None], frequencies=frequencies) @ weight.T)
            places.append(place)
        rows, columns = parts
        hidden = (rows[:, None] + (columns + first.bias)).relu()
        mixed = (hidden @ weights.T).permute(2, 0, 1)
        return mixed[:, places[0]][:, :, places[1]].flatten(1)

    def _held(self, slots: Float[Tensor, "n k d"]) -> Bool[Tensor, "n k"]:
        """Which slots hold an object."""
        held = slots[..., :GEOMETRY].abs().amax(dim=-1) > 0
        held[:, 0] = False
        return held

    def _wanted(
        self, wanted: Float[Tensor, "m {4*(self.rank+1)}"]
    ) -> tuple[Float[Tensor, "m 4 {self.rank}"], Float[Tensor, "m 4 1"]]:
        """Weights of the maps, and a bias."""
        weights, bias = wanted.unflatten(-1, (4, self.rank + 1)).split([self.rank, 1], dim=-1)
        return weights * self.rank**-0.5, bias


def _own_coordinates(
    positions: Float[Tensor, "*q"], where: Float[Tensor, "*w"]
) -> Float[Tensor, "*p"]:
    """Own coordinates as 0..1; the last dimension of `where` has centres, then spreads."""
    centre, spread = where.chunk(2, dim=-1)
    return own_coordinates(positions, centre, spread, reach=_REACH) / (2 * _REACH) + 0.5


def _linear(layers: nn.Sequential, place: int) -> nn.Linear:
    layer = layers[place]
    assert isinstance(layer, nn.Linear)
    return layer
