"""A run with an encoder that is frozen but for its last layer, as pretrained ones are."""

from pathlib import Path

import pytest
import torch
from small_runs import Learn, config, learned, stop_at
from torch import nn

from online.runs.checkpoint import MODEL_FILE, latest_checkpoint, load_checkpoint
from online.runs.directory import RunDirectory
from online.runs.models import load_pair
from online.runs.segments import find_segments, load_segment
from online.runs.weights import load_into

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

SETTINGS = ("training.keep_segments=true", "stream.order=stream", "stream.max_epochs=1")


class Pretrained(nn.Module):
    """Its backbone is built the same each time; statistics and dropout would change in training."""

    feature_size = 8

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            layers = [nn.Conv2d(3, 8, 2, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)]
            self.backbone = nn.Sequential(*layers).requires_grad_(False)
        self.project = nn.Linear(8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.project(self.backbone(images).flatten(2).transpose(1, 2))

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        return height // 2, width // 2


@pytest.fixture(autouse=True)
def pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("setcon.model.build_encoder", lambda config, **inputs: Pretrained())


def test_it_learns_is_saved_without_what_is_frozen_and_continues_bit_for_bit(
    learn: Learn, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    settings = config(*SETTINGS)
    done = learn(whole, settings)
    assert done.evaluation is not None
    for step in (5, 8):
        assert learn(stopped, settings, observe=stop_at(step)).step == step
    assert learn(stopped, settings).step == done.step
    assert learned(stopped) == learned(whole)

    newest = latest_checkpoint(whole / "checkpoints")
    assert newest is not None
    saved = load_checkpoint(newest).model
    (segment,) = find_segments(whole / "segments")
    assert saved.keys() == load_segment(segment).keys()
    assert {name for name in saved if name.startswith("encoder.")} == {
        "encoder.project.weight",
        "encoder.project.bias",
    }
    assert (newest / MODEL_FILE).stat().st_size > 0

    pair = load_pair(RunDirectory(whole), settings, device=torch.device("cpu"))
    load_into(pair.model, saved, where=newest)
    began, ended = (model.encoder.state_dict() for model in (pair.untrained, pair.model))
    for name, value in Pretrained().state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(began[name], value)
            assert torch.equal(ended[name], value)
    assert not torch.equal(began["project.weight"], ended["project.weight"])
