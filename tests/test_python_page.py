"""docs/python.md and the notebook are true: their code runs, and gives the values that it names."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL
from snippets import commands, python_snippets, run_snippet

from ingest.jobs import ingest_sources
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.config import load_preset
from online.session.start import train_on_store

DOCS = Path(__file__).parents[1] / "docs"
PAGE, NOTEBOOK = DOCS / "python.md", DOCS / "notebook.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands of both make, in less time."""
    tmp_path = tmp_path_factory.mktemp("python")
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


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_cells_of_the_notebook_run_one_after_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in code:
        exec(compile(cell, str(NOTEBOOK), "exec"), names)
    assert [len(axis.images) for axis in names["axes"].flat] == [1] * 12
    assert len(names["losses"]) > 1
    assert "batches, loss" in capsys.readouterr().out
    plt.close("all")


def test_the_notebook_is_made_by_the_commands_of_the_page() -> None:
    first = "".join(json.loads(NOTEBOOK.read_text())["cells"][0]["source"])
    asked = [line.strip() for line in first.splitlines() if line.startswith("    setcon ")]
    assert asked == commands(PAGE)[:3]
