"""docs/python.md is true: its snippets run one after another, and give the values they name."""

from pathlib import Path

import pytest
from small_runs import SMALL
from snippets import python_snippets, run_snippet

from ingest.jobs import ingest_sources
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.config import load_preset
from online.session.start import train_on_store

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the page's commands make, in less time."""
    render_scene(BallsConfig(num_frames=160, fps=15, size=64, seed=1), tmp_path / "balls.mp4")
    (done,) = ingest_sources(
        [str(tmp_path / "balls.mp4")], tmp_path / "store", RecordSettings(size=32)
    )
    assert done.error is None
    settings = [*SMALL, "replay.fifo_bytes=122880", "replay.long_term_bytes=122880"]
    settings += ["training.steps=4", "stream.credit_bytes=400000"]
    train_on_store(tmp_path / "store", tmp_path / "runs/balls", load_preset("demo", settings))
    return tmp_path


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_snippets_give_the_values_they_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(folder)
    assert run_snippet("\n".join(python_snippets(PAGE))) >= 10
