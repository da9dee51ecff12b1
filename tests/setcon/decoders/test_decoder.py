import pytest
import torch

from setcon.config import DecoderConfig
from setcon.decoders.decoder import BilinearDecoder, PixelDecoder, build_decoder
from setcon.position import fourier_features, position_grid


@pytest.mark.parametrize("kind", ["bilinear", "pixel", "broadcast", "small", "normal", "large"])
def test_every_kind_draws_four_channels_for_each_slot_alone(kind):
    torch.manual_seed(0)
    decoder = build_decoder(DecoderConfig(kind=kind, hidden_size=8), slot_size=6).double()
    slots = torch.randn(2, 3, 6, dtype=torch.float64)
    channels = decoder(slots, 16, 24)
    assert channels.shape == (2, 3, 4, 16, 24)
    changed = slots.clone()
    changed[1, 2] += 1
    different = (decoder(changed, 16, 24) - channels).abs().amax(dim=(2, 3, 4)) > 1e-10
    assert different.nonzero().tolist() == [[1, 2]]


def test_pixel_decoder_is_an_mlp_of_slot_and_position():
    torch.manual_seed(0)
    decoder = PixelDecoder(DecoderConfig(hidden_size=8, depth=2, frequencies=3), slot_size=6)
    slots, position = torch.randn(1, 2, 6), torch.rand(1, 2)
    features = fourier_features(position[0], frequencies=3)
    weight = torch.cat([decoder.from_slot.weight, decoder.from_position.weight], dim=1)
    for k in range(2):
        hidden = weight @ torch.cat([slots[0, k], features]) + decoder.from_slot.bias
        expected = decoder.mlp(hidden)
        torch.testing.assert_close(decoder.at(slots, position)[0, k, :, 0], expected)


def test_bilinear_decoder_is_an_inner_product_of_slot_and_position():
    torch.manual_seed(0)
    config = DecoderConfig(kind="bilinear", hidden_size=8, rank=4, frequencies=3)
    decoder = BilinearDecoder(config, slot_size=6)
    slots, position = torch.randn(1, 2, 6), torch.rand(1, 2)
    maps = decoder.from_position(fourier_features(position[0], frequencies=3))
    for k in range(2):
        for channel, wanted in enumerate(decoder.from_slot(slots[0, k]).view(4, 5)):
            expected = wanted[:4] @ maps / 2 + wanted[4]
            torch.testing.assert_close(decoder.at(slots, position)[0, k, channel, 0], expected)


@pytest.mark.parametrize("kind", ["bilinear", "pixel"])
def test_pixelwise_decoders_draw_the_same_at_a_position_as_in_the_whole_image(kind):
    torch.manual_seed(0)
    decoder = build_decoder(DecoderConfig(kind=kind, hidden_size=8), slot_size=6)
    slots, index = torch.randn(2, 3, 6), torch.tensor([0, 7, 19])
    image = decoder(slots, 4, 5).flatten(-2)
    found = decoder.at(slots, position_grid(4, 5)[index])
    torch.testing.assert_close(found, image[..., index])


def test_paper_decoder_has_the_filter_size_asked_for():
    decoder = build_decoder(DecoderConfig(kind="broadcast", hidden_size=16, depth=3), slot_size=6)
    sizes = [module.out_channels for module in decoder.modules() if hasattr(module, "out_channels")]
    assert sizes == [16, 16, 16, 4]


@pytest.mark.parametrize("kind", ["small", "large"])
def test_port_decoders_draw_in_multiples_of_eight_and_cut(kind):
    torch.manual_seed(0)
    decoder = build_decoder(DecoderConfig(kind=kind), slot_size=6)
    slots = torch.randn(1, 2, 6)
    whole = decoder(slots, 16, 24)
    torch.testing.assert_close(decoder(slots, 15, 18), whole[..., :15, :18])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"kind": "huge"},
            "decoder kind must be one of bilinear, pixel, object, broadcast, small, normal, large",
        ),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"frequencies": -1}, "frequencies must be at least 0, got -1"),
    ],
)
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**values)
