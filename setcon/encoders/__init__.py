"""Encoders: an image to one feature vector per position of a grid.

A new kind is a module here that keeps the `Encoder` protocol, and a branch in `build_encoder`.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from setcon.config import EncoderConfig
from setcon.encoders.convolutional import ConvolutionalEncoder
from setcon.encoders.timm_encoder import TimmEncoder


@runtime_checkable
class Encoder(Protocol):
    """What the model asks of an encoder, which is a torch module too.

    Parameters that require no gradient, such as pretrained ones, are frozen: they stay in
    evaluation mode, and no checkpoint holds them, so that building the encoder must bring them.
    """

    feature_size: int
    """Size of a feature vector."""

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p c"]:
        """Features of every position, row by row, of RGB images in [0, 1].

        The encoder itself does whatever else its inputs need, such as a mean of zero.
        """
        ...

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the positions of an image of this size: p = rows * columns.

        Raises ValueError if it cannot encode such an image.
        """
        ...


def build_encoder(config: EncoderConfig, *, center_inputs: bool = False) -> Encoder:
    """The encoder that a configuration asks for.

    `center_inputs` is for those that are trained from scratch: they see [-1, 1] instead of [0, 1].

    Raises EncoderError where a pretrained one is not to be had.
    """
    if config.kind == "timm":
        return TimmEncoder(config.timm, width=config.width)
    return ConvolutionalEncoder(config, center_inputs=center_inputs)
