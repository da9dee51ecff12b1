"""What `import online` gives, and what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from signatures import unexported
from small_runs import config

import ingest
import online
import setcon

HEAVY = {"av", "h5py", "matplotlib", "numpy", "setcon", "torch", "zarr", "zmq"}


def test_public_names_are_sorted_and_each_is_there():
    assert online.__all__ == sorted(set(online.__all__))
    for name in online.__all__:
        assert getattr(online, name) is not None


def test_every_public_name_has_a_home_and_is_listed():
    assert sorted(online._HOMES) == dir(online) == online.__all__


def test_what_public_calls_take_and_return_is_public():
    built = {"ClipRequest", "RunConfig", "ServeConfig", "ServerKeys", "Start", "TrainerKeys"}
    assert unexported(online, setcon, ingest, built=built) == []


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'online' has no attribute 'train_off_store'"):
        online.train_off_store  # noqa: B018 # pyright: ignore[reportAttributeAccessIssue]


def test_importing_it_brings_nothing_heavy():
    program = "import sys, online; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_program_trains_and_uses_the_model_by_these_names(balls: Path, tmp_path: Path):
    run = str(tmp_path / "run")
    outcome = online.train_on_store(str(balls), run, config("training.steps=2"))
    assert outcome.evaluation is not None
    assert outcome.report == Path(online.write_report(run))
    trained = online.load_run(run)
    slots = trained.model.encode(torch.rand(3, 3, 16, 16)).slots
    assert slots.shape == (3, 4, 16)
    assert online.evaluate_run(run, str(balls)).evaluation.step == 2
    assert [entry.step for entry in online.read_run(run).steps] == [1, 2]
