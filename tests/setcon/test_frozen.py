"""What is not trained stays as it was, and is not saved."""

import pytest
import torch
from torch import nn

from setcon import model as model_module
from setcon.config import SetConConfig
from setcon.encoders import Encoder
from setcon.frozen import is_frozen, learned_state
from setcon.model import SetCon


class Pretrained(nn.Module):
    """A frozen backbone whose buffers training would change, and a projection that is trained."""

    feature_size = 6

    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
        self.backbone = nn.Sequential(*layers).requires_grad_(False)
        self.project = nn.Linear(4, 6)

    def forward(self, images):
        return self.project(self.backbone(images - 0.5).flatten(2).transpose(1, 2))

    def grid_size(self, height, width):
        return height, width


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(model_module, "build_encoder", lambda config, **inputs: Pretrained())
    torch.manual_seed(0)
    return SetCon(SetConConfig())


def test_an_encoder_is_whatever_keeps_the_protocol(model):
    assert isinstance(model.encoder, Encoder)
    assert model.encode(torch.rand(2, 3, 5, 4)).attention.shape == (2, 4, 20)


def test_training_does_not_reach_what_is_frozen(model):
    before = {name: value.clone() for name, value in model.encoder.backbone.state_dict().items()}
    for _ in range(2):
        assert model.train() is model
        slots = model.encode(torch.rand(2, 3, 4, 4)).slots
        assert torch.equal(slots[0], model.encode(torch.rand(2, 3, 4, 4)).slots[0]) is False
    backbone = model.encoder.backbone
    assert not any(module.training for module in backbone.modules())  # dropout and statistics
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert model.training
    assert model.encoder.project.training
    assert model.transition.training


def test_what_is_saved_is_what_was_learned(model):
    saved = learned_state(model)
    left_out = model.state_dict().keys() - saved.keys()
    assert left_out == {f"encoder.backbone.{name}" for name in model.encoder.backbone.state_dict()}
    assert learned_state(SetCon(model.config).requires_grad_(False)) == {}


def test_a_model_without_frozen_parameters_is_saved_whole():
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    assert learned_state(plain).keys() == plain.state_dict().keys()
    assert not is_frozen(plain)
    assert not is_frozen(nn.ReLU())  # without parameters nothing can be frozen
    plain[0].requires_grad_(False)
    assert learned_state(plain).keys() == {f"1.{name}" for name in plain[1].state_dict()}
