"""A probe that was fitted once is used again where fitting would give the same."""

import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from small_runs import config

import setcon
from ingest.jobs import ingest_sources
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.analysis.embed import embed_run
from online.analysis.opened import evaluate_run
from online.runs.directory import RunDirectory
from online.scores.evaluation import load_evaluation, load_panels
from online.session.start import train_on_store
from setcon.probe import FittedProbe

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


@pytest.fixture(scope="module")
def run(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "run"
    train_on_store(balls, path, config())
    return path


@pytest.fixture
def unfitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a probe was fitted")

    monkeypatch.setattr("online.probing.reading.fit", refuse)


@pytest.mark.usefixtures("unfitted")
def test_a_run_is_scored_again_without_fitting(run: Path, balls: Path) -> None:
    folder = RunDirectory(run).probe_folder(12)
    found, before = evaluate_run(run, balls), load_evaluation(folder)
    assert found.evaluation.trained == before.trained
    assert found.evaluation.untrained == before.untrained
    np.testing.assert_array_equal(found.panels.alphas, load_panels(folder).alphas)


@pytest.mark.usefixtures("unfitted")
def test_alphas_are_embedded_without_fitting(run: Path, balls: Path, tmp_path: Path) -> None:
    assert embed_run(run, balls, tmp_path / "out.h5").frames == 240


def test_a_loaded_run_has_its_model_and_probe_and_configuration(run: Path) -> None:
    trained = setcon.load(run)
    assert trained.config == config()
    slots = trained.model.encode(torch.zeros(3, 16, 16, dtype=torch.uint8)).slots
    assert trained.probe is not None
    assert trained.probe(slots).image.shape == (1, 3, 16, 16)


def test_a_damaged_probe_is_fitted_again(run: Path, balls: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    folder = RunDirectory(tmp_path / "run").probe_folder(12)
    for file in folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    assert setcon.load(tmp_path / "run").probe is None
    found = evaluate_run(tmp_path / "run", balls)
    assert found.evaluation.trained == load_evaluation(folder).trained


def test_other_footage_and_another_budget_get_a_probe_of_their_own(
    run: Path, balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from online.probing import reading

    fitted: list[FittedProbe] = []

    def note(*given: Any) -> FittedProbe:
        fitted.append(fit(*given))
        return fitted[-1]

    fit = reading.fit
    monkeypatch.setattr(reading, "fit", note)
    render_scene(BallsConfig(num_frames=240, fps=15, size=32, seed=5), tmp_path / "balls.mp4")
    ingest_sources([str(tmp_path / "balls.mp4")], tmp_path / "store", RecordSettings(size=16))
    evaluate_run(run, tmp_path / "store")  # a recording of the same name and length
    assert len(fitted) == 2
    shutil.copytree(run, tmp_path / "run")
    settings = (tmp_path / "run/config.toml").read_text()
    changed = settings.replace("steps = 3\n", "steps = 4\n")
    assert changed != settings
    (tmp_path / "run/config.toml").write_text(changed)
    evaluate_run(tmp_path / "run", balls)
    assert len(fitted) == 4
