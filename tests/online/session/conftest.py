"""Runs that several files continue or look at; each process makes them once."""

import shutil
from pathlib import Path

import pytest
from small_runs import config, stop_at

from online.session.outcome import Outcome
from online.session.start import train_on_store


@pytest.fixture(scope="session")
def uninterrupted(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    return run, train_on_store(balls, run, config())


@pytest.fixture(scope="session")
def stopped_at_8(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    for step in (5, 8):
        train_on_store(balls, run, config(), observe=stop_at(step))
    return run


@pytest.fixture
def stopped_twice(stopped_at_8: Path, tmp_path: Path) -> Path:
    """A run with checkpoints of the steps 0, 5 and 8."""
    return shutil.copytree(stopped_at_8, tmp_path / "run")
