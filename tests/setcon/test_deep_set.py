import pytest
import torch

from setcon.config import SetEncoderConfig
from setcon.deep_set import DeepSet


@pytest.mark.parametrize(("depth", "activation"), [(2, "relu"), (3, "elu")])
def test_order_of_slots_does_not_matter_but_their_values_do(depth, activation):
    torch.manual_seed(0)
    config = SetEncoderConfig(hidden_size=8, output_size=5, depth=depth, activation=activation)
    encoder = DeepSet(config, slot_size=4).double()
    slots = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    summary = encoder(slots)
    assert summary.shape == (2, 3, 5)
    torch.testing.assert_close(encoder(slots[:, :, torch.randperm(6)]), summary)
    mixed = torch.stack([slots[..., k, :].roll(k, dims=-1) for k in range(6)], dim=-2)
    assert not torch.allclose(encoder(mixed), summary)


def test_port_variant_has_three_layers_with_elu_on_each_side():
    encoder = DeepSet(SetEncoderConfig(depth=3, activation="elu"), slot_size=4)
    for layers in (encoder.each, encoder.whole):
        assert [type(layer).__name__ for layer in layers] == ["Linear", "ELU"] * 2 + ["Linear"]


@pytest.mark.usefixtures("unchecked")
def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="must be one of relu, elu, got 'gelu'"):
        SetEncoderConfig(activation="gelu")
