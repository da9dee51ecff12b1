"""From an image to one feature vector per position: convolutions, position, LayerNorm, MLP.

    h1 = convolutions(image) + Linear(position)         at full or at an eighth of the resolution
    h  = MLP(LayerNorm(h1))

`paper` is Löwe et al. (2020): two 1x1 convolutions, full resolution; with a `patch` of 2 the first
sees squares of 2x2 pixels, and there are a quarter of the positions. `small`, `normal` and `large`
are the three sizes of the 2021 PyTorch port for real video: an eighth of the resolution. `dilated`
keeps a quarter of it and sees 129 pixels across (Yu and Koltun 2016).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from setcon.config import EncoderConfig, Normalisation
from setcon.layers import mlp, normalisation_layer
from setcon.position import PositionEmbedding


class ConvolutionalEncoder(nn.Module):
    """Images of any size to features."""

    def __init__(self, config: EncoderConfig, *, center_inputs: bool = False) -> None:
        super().__init__()
        width = config.width
        self.feature_size = width
        self.center_inputs = center_inputs
        self.reduction = {"paper": config.patch, "dilated": 4}.get(config.kind, 8)
        self.patch = config.patch
        self.convolutions = nn.Sequential(*_convolutions(config))
        self.position = PositionEmbedding(width)
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp([width, width, width])

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p c"]:
        """Features of every position, row by row."""
        rows, columns = self.grid_size(images.shape[-2], images.shape[-1])
        inputs = images * 2 - 1 if self.center_inputs else images
        maps = self.convolutions(self._whole_patches(inputs))
        features = maps.flatten(2).transpose(1, 2)  # a view without copying, if channels_last
        return self.mlp(self.norm(features + self.position(rows, columns)))

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the positions of an image of this size: p = rows * columns."""
        return -(-height // self.reduction), -(-width // self.reduction)

    def _whole_patches(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 ph pw"]:
        """Repeat the last row and column until patches fill the image; most images are full."""
        below, right = (-side % self.patch for side in images.shape[-2:])
        return pad(images, (0, right, 0, below), mode="replicate") if below or right else images


def _convolutions(config: EncoderConfig) -> list[nn.Module]:
    if config.kind == "paper":
        return _paper(config.width, config.normalisation, config.patch)
    build = {"small": _small, "normal": _normal, "large": _large, "dilated": _dilated}[config.kind]
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


def _dilated(width: int, normalisation: Normalisation) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels, kernel, stride, dilation in (
        *((3, 5, 2, 1), (width, 3, 2, 1), (width, 3, 1, 1)),
        *((width, 3, 1, 2), (width, 3, 1, 4), (width, 3, 1, 8)),
    ):
        padding = dilation * (kernel // 2)
        convolution = nn.Conv2d(channels, width, kernel, stride, padding, dilation)
        layers += [convolution, normalisation_layer(normalisation, width), nn.ReLU()]
    return layers


def _head(width: int) -> list[nn.Module]:
    return [
        *[_conv(256, width), nn.ReLU()],
        *[_conv(width, width), nn.ReLU()],
        *[_conv(width, width), nn.ReLU()],
    ]


def _conv(channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)
