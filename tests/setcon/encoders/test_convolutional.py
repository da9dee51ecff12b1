import pytest
import torch

from setcon.config import EncoderConfig
from setcon.encoders.convolutional import ConvolutionalEncoder


@pytest.mark.parametrize("kind", ["paper", "small", "normal", "large", "dilated"])
@pytest.mark.parametrize("size", [(16, 24), (17, 9)])
def test_every_kind_gives_one_feature_per_position_of_its_grid(kind, size):
    encoder = ConvolutionalEncoder(EncoderConfig(kind=kind, width=8))
    rows, columns = encoder.grid_size(*size)
    assert encoder(torch.rand(2, 3, *size)).shape == (2, rows * columns, 8)
    assert rows == -(-size[0] // {"paper": 1, "dilated": 4}.get(kind, 8))


def test_patches_that_an_image_does_not_fill_repeat_its_edge():
    torch.manual_seed(0)
    encoder = ConvolutionalEncoder(EncoderConfig(width=8, patch=4))
    images = torch.rand(2, 3, 5, 8)
    filled = torch.cat([images, images[:, :, -1:].expand(-1, -1, 3, -1)], dim=2)
    assert encoder.grid_size(5, 8) == encoder.grid_size(8, 8) == (2, 2)
    torch.testing.assert_close(encoder(images), encoder(filled))


def test_a_position_of_the_dilated_encoder_sees_129_pixels():
    torch.manual_seed(0)
    config = EncoderConfig(kind="dilated", width=4)
    encoder = ConvolutionalEncoder(config).double()
    images = torch.rand(1, 3, 180, 180, dtype=torch.float64, requires_grad=True)
    features = encoder(images).view(1, 45, 45, 4)
    features[0, 22, 22].square().sum().backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(dim=0).nonzero()
    assert seen.amin(dim=0).tolist() == [88 - 64] * 2
    assert seen.amax(dim=0).tolist() == [88 + 64] * 2


def test_paper_encoder_sees_each_pixel_alone():
    torch.manual_seed(0)
    encoder = ConvolutionalEncoder(EncoderConfig(width=8))
    images = torch.rand(1, 3, 4, 5)
    changed = images.clone()
    changed[0, :, 2, 3] = 1 - changed[0, :, 2, 3]
    different = (encoder(images) - encoder(changed)).abs().amax(dim=-1)[0] > 0
    assert different.nonzero().tolist() == [[2 * 5 + 3]]


def test_paper_encoder_is_two_small_mlps_and_a_projected_grid():
    encoder = ConvolutionalEncoder(EncoderConfig(width=32))
    shapes = [tuple(parameter.shape) for parameter in encoder.convolutions.parameters()]
    assert shapes == [(32, 3, 1, 1), (32,), (32, 32, 1, 1), (32,)]


@pytest.mark.parametrize("kind", ["paper", "small", "dilated"])
def test_position_reaches_the_features(kind):
    torch.manual_seed(0)
    encoder = ConvolutionalEncoder(EncoderConfig(kind=kind, width=8)).eval()
    features = encoder(torch.zeros(1, 3, 64, 64))[0]
    middle = features.view(*encoder.grid_size(64, 64), 8)[3, 3:5]
    assert not torch.allclose(middle[0], middle[1])


@pytest.mark.parametrize("kind", ["paper", "normal", "dilated"])
def test_memory_layout_changes_nothing_but_speed(kind):
    torch.manual_seed(0)
    encoder = ConvolutionalEncoder(EncoderConfig(kind=kind, width=8)).double()
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    expected = encoder(images)
    encoder = encoder.to(memory_format=torch.channels_last)
    found = encoder(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("normalisation", "layer"),
    [
        ("none", torch.nn.Identity),
        ("batch", torch.nn.BatchNorm2d),
        ("group", torch.nn.GroupNorm),
    ],
)
@pytest.mark.parametrize("kind", ["paper", "small", "normal", "large", "dilated"])
def test_normalisation_follows_the_first_convolution(kind, normalisation, layer):
    encoder = ConvolutionalEncoder(EncoderConfig(kind=kind, width=16, normalisation=normalisation))
    assert isinstance(encoder.convolutions[1], layer)
    assert encoder(torch.rand(2, 3, 16, 16)).isfinite().all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"kind": "huge"},
            "encoder kind must be one of paper, small, normal, large, dilated, timm, got 'huge'",
        ),
        ({"normalisation": "layer"}, "encoder normalisation must be one of"),
        ({"width": 0}, "encoder_width must be at least 1, got 0"),
        ({"kind": "dilated", "width": 12, "normalisation": "group"}, "multiples of 8, got 12"),
        ({"kind": "dilated", "patch": 2}, "only a paper encoder has a patch, got 2 for dilated"),
        ({"width": 12, "normalisation": "group"}, "GroupNorm needs a width in multiples of 8"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**values)
