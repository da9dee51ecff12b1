"""A server, and runs that several files continue or look at; each process makes them once."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from shape_checks import without_shape_checks
from small_runs import Learn, config, stop_at

from online.queue.server_process import ServerProcess
from online.session.outcome import Outcome
from online.session.start import train_connected, train_on_store


@pytest.fixture(scope="session")
def learn(balls: Path) -> Iterator[Learn]:
    """Train on `balls` as `train_on_store` does; one server for each run would take longer."""
    with ServerProcess(balls) as server:
        yield partial(train_connected, [server.address])


@pytest.fixture(scope="session")
def uninterrupted(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    return run, train_on_store(balls, run, config())


@pytest.fixture(scope="session")
def stopped_at_8(learn: Learn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    with without_shape_checks():
        for step in (5, 8):
            learn(run, config(), observe=stop_at(step))
    return run


@pytest.fixture
def stopped_twice(stopped_at_8: Path, tmp_path: Path) -> Path:
    """A run with checkpoints of the steps 0, 5 and 8."""
    return shutil.copytree(stopped_at_8, tmp_path / "run")
