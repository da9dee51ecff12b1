"""Decoders from a slot to its part of the image: four channels, RGB and the logit of its alpha.

`bilinear` multiplies what a slot asks for with what a position offers, a whole image at once;
`pixel` asks an MLP about one position at a time. Both can be trained on some of the pixels.
`broadcast` (the paper) lays a slot out over the whole image and convolves; `small`, `normal` and
`large` (the 2021 port) lay it out at an eighth of the resolution and convolve upwards.
"""

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from setcon.config import DecoderConfig
from setcon.decoders.object_decoder import ObjectDecoder
from setcon.decoders.whole import image_by_image
from setcon.layers import mlp, normalisation_layer
from setcon.position import PositionEmbedding, fourier_features, position_grid


class BilinearDecoder(nn.Module):
    """channel_c(slot, position) = wanted_c(slot) · maps(position) / sqrt(rank) + bias_c(slot)."""

    def __init__(self, config: DecoderConfig, slot_size: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.frequencies, self.rank = config.frequencies, config.rank
        self.from_slot = mlp([slot_size, *[hidden] * config.depth, 4 * (config.rank + 1)])
        self.from_position = mlp([2 + 4 * config.frequencies, hidden, config.rank])

    def at(
        self, slots: Float[Tensor, "n k d"], positions: Float[Tensor, "q 2"]
    ) -> Float[Tensor, "n k 4 q"]:
        """The channels at q positions (y, x in [0, 1]), the same in each image."""
        wanted = self.from_slot(slots).unflatten(-1, (4, self.rank + 1))
        features = fourier_features(positions, frequencies=self.frequencies)
        maps = self.from_position(features) * self.rank**-0.5
        return wanted[..., :-1] @ maps.T + wanted[..., -1:]

    def forward(
        self, slots: Float[Tensor, "n k d"], height: int, width: int
    ) -> Float[Tensor, "n k 4 h w"]:
        """The channels of a whole image."""
        grid = position_grid(height, width, like=slots)
        return self.at(slots, grid).unflatten(-1, (height, width))


class PixelDecoder(nn.Module):
    """An MLP of a slot and the Fourier features of a position."""

    def __init__(self, config: DecoderConfig, slot_size: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.frequencies = config.frequencies
        # The first layer of an MLP on [slot, position] in two parts, computed once per slot and
        # once per position instead of for every pair.
        self.from_slot = nn.Linear(slot_size, hidden)
        self.from_position = nn.Linear(2 + 4 * config.frequencies, hidden, bias=False)
        self.mlp = nn.Sequential(nn.ReLU(), *mlp([*[hidden] * config.depth, 4]))

    def at(
        self, slots: Float[Tensor, "n k d"], positions: Float[Tensor, "q 2"]
    ) -> Float[Tensor, "n k 4 q"]:
        """The channels at q positions (y, x in [0, 1]), the same in each image."""
        features = fourier_features(positions, frequencies=self.frequencies)
        hidden = self.from_slot(slots)[:, :, None] + self.from_position(features)
        return self.mlp(hidden).transpose(-1, -2)

    def forward(
        self, slots: Float[Tensor, "n k d"], height: int, width: int
    ) -> Float[Tensor, "n k 4 h w"]:
        """The channels of a whole image."""
        grid = position_grid(height, width, like=slots)
        return image_by_image(partial(self.at, positions=grid), slots, height, width)


class BroadcastDecoder(nn.Module):
    """A slot laid out over a grid, the grid's position added, then convolutions."""

    def __init__(self, config: DecoderConfig, slot_size: int) -> None:
        super().__init__()
        self.enlargement = 1 if config.kind == "broadcast" else 8
        self.position = PositionEmbedding(slot_size)
        self.convolutions = nn.Sequential(*_convolutions(config, slot_size))

    def forward(
        self, slots: Float[Tensor, "n k d"], height: int, width: int
    ) -> Float[Tensor, "n k 4 h w"]:
        """The channels of a whole image; it is cut from one in multiples of the enlargement."""
        rows, columns = (-(-side // self.enlargement) for side in (height, width))
        laid_out = slots.flatten(0, 1)[:, None] + self.position(rows, columns)
        maps = laid_out.transpose(1, 2).unflatten(-1, (rows, columns))
        drawn = self.convolutions(maps)[..., :height, :width]
        return drawn.unflatten(0, slots.shape[:2])


def build_decoder(
    config: DecoderConfig, slot_size: int
) -> BilinearDecoder | PixelDecoder | ObjectDecoder | BroadcastDecoder:
    """The decoder that a configuration asks for."""
    if config.kind == "bilinear":
        return BilinearDecoder(config, slot_size)
    if config.kind == "pixel":
        return PixelDecoder(config, slot_size)
    if config.kind == "object":
        return ObjectDecoder(config, slot_size)
    return BroadcastDecoder(config, slot_size)


def _convolutions(config: DecoderConfig, slot_size: int) -> list[nn.Module]:
    if config.kind == "broadcast":
        return _paper(slot_size, config.hidden_size, config.depth)
    norm = normalisation_layer(config.normalisation, 64)
    if config.kind == "small":
        return [*[_up(slot_size, 256), nn.ReLU()], *_trunk(), norm, _up(64, 4, 7, stride=2)]
    if config.kind == "normal":
        return [*_head(slot_size), *_trunk(), norm, _up(64, 4, 7, stride=2)]
    return [
        *_head(slot_size),
        *[_up(256, 256), nn.ReLU()],
        *_trunk(),
        *[_up(64, 64, 7, stride=2), nn.ReLU()],
        norm,
        _up(64, 4, 9),
    ]


def _paper(slot_size: int, filters: int, depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [nn.Conv2d(filters if layer else slot_size, filters, 5, padding=2), nn.ReLU()]
    return [*layers, nn.Conv2d(filters, 4, 3, padding=1)]


def _head(slot_size: int) -> list[nn.Module]:
    return [
        *[_up(slot_size, slot_size), nn.ReLU()],
        _up(slot_size, slot_size),  # the port has no ReLU here
        *[_up(slot_size, 256), nn.ReLU()],
    ]


def _trunk() -> list[nn.Module]:
    return [
        *[_up(256, 128, stride=2), nn.ReLU()],
        *[_up(128, 128), nn.ReLU()],
        *[_up(128, 64, stride=2), nn.ReLU()],
    ]


def _up(
    channels_in: int, channels_out: int, kernel: int = 3, *, stride: int = 1
) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(
        channels_in, channels_out, kernel, stride, padding=kernel // 2, output_padding=stride - 1
    )
