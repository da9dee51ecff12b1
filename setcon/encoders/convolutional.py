"""From an image to one feature vector per position: convolutions, position, LayerNorm, MLP.

    h1 = convolutions(image) + Linear(position)         at full or at an eighth of the resolution
    h  = MLP(LayerNorm(h1))

`paper` is Löwe et al. (2020): two 1x1 convolutions, full resolution; with a `patch` of 2 the first
sees squares of 2x2 pixels, and there are a quarter of the positions. `small`, `normal` and `large`
are the three sizes of the 2021 PyTorch port for real video: an eighth of the resolution.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from setcon.checks import check_at_least, check_choice
from setcon.layers import GROUPS, Normalisation, mlp, normalisation_layer
from setcon.position import PositionEmbedding

EncoderKind = Literal["paper", "small", "normal", "large"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Which convolutions an encoder starts with, and how wide it is."""

    kind: EncoderKind = "paper"
    """`paper` keeps the resolution; `small`, `normal` and `large` reduce it to an eighth."""
    width: int = 32
    """Size of a feature vector; for `paper` also the filter size of its convolutions."""
    patch: int = 1
    """Side, in pixels, of what one position of `paper` sees: 1 in the paper."""
    normalisation: Normalisation = "none"
    """After the first convolution: nothing (paper), BatchNorm (port), or GroupNorm of 8 groups."""

    def __post_init__(self) -> None:
        check_choice("encoder kind", self.kind, EncoderKind)
        check_choice("encoder normalisation", self.normalisation, Normalisation)
        check_at_least(1, encoder_width=self.width, encoder_patch=self.patch)
        if self.patch != 1 and self.kind != "paper":
            raise ValueError(f"only a paper encoder has a patch, got {self.patch} for {self.kind}")
        if self.normalisation == "group" and self.kind == "paper" and self.width % GROUPS:
            raise ValueError(f"GroupNorm needs a width in multiples of {GROUPS}, got {self.width}")


class Encoder(nn.Module):
    """Images to features; any image size."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.reduction = config.patch if config.kind == "paper" else 8
        self.patch = config.patch
        self.convolutions = nn.Sequential(*_convolutions(config))
        self.position = PositionEmbedding(width)
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp([width, width, width])

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p c"]:
        """Features of every position, row by row; ValueError if patches do not fill the image."""
        if any(side % self.patch for side in images.shape[-2:]):
            raise ValueError(
                f"patches of {self.patch} pixels do not fill images of "
                f"{images.shape[-2]}x{images.shape[-1]}"
            )
        maps = self.convolutions(images)
        height, width = maps.shape[-2:]
        features = maps.flatten(2).transpose(1, 2)  # a view without copying, if channels_last
        return self.mlp(self.norm(features + self.position(height, width)))

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the positions of an image of this size: p = rows * columns."""
        return -(-height // self.reduction), -(-width // self.reduction)


def _convolutions(config: EncoderConfig) -> list[nn.Module]:
    if config.kind == "paper":
        return _paper(config.width, config.normalisation, config.patch)
    build = {"small": _small, "normal": _normal, "large": _large}[config.kind]
    return build(config.width, config.normalisation)


def _paper(width: int, normalisation: Normalisation, patch: int) -> list[nn.Module]:
    return [
        nn.Conv2d(3, width, patch, stride=patch),
        normalisation_layer(normalisation, width),
        nn.ReLU(),
        _conv(width, width, kernel=1),
    ]


def _small(width: int, normalisation: Normalisation) -> list[nn.Module]:
    return [
        *[_conv(3, 64, kernel=7, stride=2), normalisation_layer(normalisation, 64), nn.ReLU()],
        _conv(64, 128, stride=2),  # the port has no ReLU here
        *[_conv(128, 128), nn.ReLU()],
        *[_conv(128, 256, stride=2), nn.ReLU()],
        *[_conv(256, width), nn.ReLU()],
    ]


def _normal(width: int, normalisation: Normalisation) -> list[nn.Module]:
    return [
        *[_conv(3, 64, kernel=7, stride=2), normalisation_layer(normalisation, 64), nn.ReLU()],
        *[_conv(64, 128, stride=2), nn.ReLU()],
        *[_conv(128, 128), nn.ReLU()],
        *[_conv(128, 256, stride=2), nn.ReLU()],
        *_head(width),
    ]


def _large(width: int, normalisation: Normalisation) -> list[nn.Module]:
    return [
        *[_conv(3, 64, kernel=9), normalisation_layer(normalisation, 64), nn.ReLU()],
        *[_conv(64, 64, kernel=7, stride=2), nn.ReLU()],
        _conv(64, 128, stride=2),  # the port has no ReLU here
        *[_conv(128, 128), nn.ReLU()],
        *[_conv(128, 256, stride=2), nn.ReLU()],
        *[_conv(256, 256), nn.ReLU()],
        *_head(width),
    ]


def _head(width: int) -> list[nn.Module]:
    return [
        *[_conv(256, width), nn.ReLU()],
        *[_conv(width, width), nn.ReLU()],
        *[_conv(width, width), nn.ReLU()],
    ]


def _conv(channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)
