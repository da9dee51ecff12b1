"""Checkpoints that anyone may have changed: one that is read is whole, else a line says why not."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import assert_one_line, changed, contents, few_unless_asked, garbled, limited_memory
from hypothesis import given
from hypothesis import strategies as st
from made_stores import make_store
from safetensors.torch import load_file, save_file
from small_runs import config

from ingest.disk.checksum import crc32c
from ingest.errors import IngestError
from online.errors import CheckpointError, OnlineError
from online.queue.client import Client
from online.queue.server_process import ServerProcess
from online.runs.checkpoint import folder_name, load_checkpoint, newest_readable, save_checkpoint
from online.runs.rng import rng_state, set_rng_state
from online.session.state import RunState
from online.session.world import World

pytestmark = [pytest.mark.fuzz, pytest.mark.usefixtures("unchecked_shapes")]

TENSORS = ("model.safetensors", "optimizer.safetensors", "replay.safetensors")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = make_store(tmp_path_factory.mktemp("served") / "store", length=60)
    with ServerProcess(store.location) as server:
        yield server.address


def new_state(client: Client) -> RunState:
    return RunState(config(), [[client]], device=torch.device("cpu"), world=World())


@pytest.fixture(scope="module")
def saved(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that has taken one step and seen two clips."""
    folder = tmp_path_factory.mktemp("saved")
    with Client(address) as client:
        state = new_state(client)
        for parameter in state.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        state.trainer.optimizer.step()
        state.trainer.step_count = 1
        held = state.checkpoint(state.saved_shards())
    held.run["replay"]["fifo"] = [["a", 0, 10, 0], ["a", 8, 10, 0]]
    return save_checkpoint(folder, held, keep=5)


@pytest.fixture(scope="module")
def copies(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A fresh copy of the checkpoint, with an untouched one of step 0 next to it."""
    folder = tmp_path_factory.mktemp("copies")

    def copy() -> Path:
        shutil.rmtree(folder)
        whole = shutil.copytree(saved, folder / folder_name(0))
        sealed(whole, json.loads((whole / "state.json").read_text()) | {"step": 0})
        return shutil.copytree(saved, folder / folder_name(1))

    return copy


def sealed(path: Path, state: Any) -> None:
    """Write a state whose checksums hold, as one who means harm would."""
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if name != "crc32c"}
        files = path.glob("*.safetensors")
        sums = {file.name: crc32c(file.read_bytes()) for file in files if file.is_file()}
        state["crc32c"] = sums | {"state": crc32c(json.dumps(state).encode())}
    (path / "state.json").write_text(json.dumps(state))


def check(path: Path, address: str) -> None:
    """A line, and the older one is taken; or a checkpoint that a run continues from, or a line."""
    before = contents(path.parent)
    try:
        with limited_memory():
            checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        assert_one_line(error)
        try:
            assert newest_readable(path.parent).checkpoint.step == 0
        except CheckpointError as error:  # of another version: no older one is taken
            assert_one_line(error)
    else:
        restored(path, checkpoint, address)
    assert contents(path.parent) == before


def restored(path: Path, checkpoint: Any, address: str) -> None:
    generators, python = rng_state(), random.getstate()
    try:
        with limited_memory(), Client(address, timeout_seconds=20) as client:
            new_state(client).restore(checkpoint, where=path, progress=lambda share: None)
    except (OnlineError, IngestError) as error:
        assert_one_line(error)
    finally:
        set_rng_state(generators)
        random.setstate(python)


def test_the_checkpoint_is_whole_before_it_is_changed(copies, address) -> None:
    path = copies()
    with Client(address) as client:
        state = new_state(client)
        assert state.restore(load_checkpoint(path), where=path, progress=lambda _: None) == 0
        assert state.step == 1


@few_unless_asked(12)
@given(data=st.data())
def test_any_state_with_checksums_that_hold(copies, address, data: st.DataObject) -> None:
    path = copies()
    state = json.loads((path / "state.json").read_text())
    part = data.draw(st.sampled_from(["", "run", "run", "optimizer", "rng"]))
    if part:
        state[part] = data.draw(changed(state[part]))
    else:
        state = data.draw(changed(state))
    sealed(path, state)
    check(path, address)


NAMES = st.text(max_size=4) | st.sampled_from(["a\nb", "0/exp_avg", "9/exp_avg", "\x1b[2J"])
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.int8, torch.bool, torch.complex64])


@few_unless_asked(8)
@given(data=st.data(), file=st.sampled_from(TENSORS))
def test_any_tensors_with_checksums_that_hold(
    copies, address, data: st.DataObject, file: str
) -> None:
    path = copies()
    tensors = load_file(path / file)
    for _ in range(data.draw(st.integers(1, 2))):
        known = st.sampled_from(sorted(tensors)) if tensors else st.nothing()
        name = data.draw(known | NAMES)
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        value = data.draw(st.sampled_from([0.0, 1.0, -1.0, float("nan"), float("inf")]))
        made = torch.full(shape, value, dtype=torch.float64).to(data.draw(DTYPES))
        tensors[name] = made
    save_file(tensors, path / file)
    sealed(path, json.loads((path / "state.json").read_text()))
    check(path, address)


ODD_FILES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a huge file": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
}


@pytest.mark.parametrize("file", ["state.json", "model.safetensors"])
@pytest.mark.parametrize("odd", ODD_FILES)
def test_a_file_that_is_none_is_damage_and_not_waited_for(copies, file: str, odd: str) -> None:
    path = copies()
    (path / file).unlink()
    ODD_FILES[odd](path / file)
    with pytest.raises(CheckpointError) as raised, limited_memory():
        load_checkpoint(path)
    assert_one_line(raised.value)
    with limited_memory():
        assert newest_readable(path.parent).checkpoint.step == 0


@few_unless_asked(12)
@given(data=st.data(), file=st.sampled_from(["state.json", *TENSORS]), seal=st.booleans())
def test_any_bytes(copies, address, data: st.DataObject, file: str, seal: bool) -> None:
    path = copies()
    (path / file).write_bytes(data.draw(garbled((path / file).read_bytes())))
    if seal and file != "state.json":  # so that the tensors' own format is what refuses them
        sealed(path, json.loads((path / "state.json").read_text()))
    check(path, address)
