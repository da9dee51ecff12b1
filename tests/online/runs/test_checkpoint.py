import json
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ingest.disk.checksum import crc32c
from online.errors import CheckpointDamaged, CheckpointError
from online.runs import checkpoint as checkpoint_module
from online.runs.checkpoint import (
    Checkpoint,
    folder_name,
    latest_checkpoint,
    load_checkpoint,
    newest_readable,
    save_checkpoint,
    set_aside,
)
from online.runs.rng import rng_state, set_rng_state
from online.runs.weights import load_into

FILES = ["state.json", "model.safetensors", "optimizer.safetensors", "replay.safetensors"]


def trained(step: int = 3) -> tuple[nn.Module, torch.optim.Optimizer, Checkpoint]:
    torch.manual_seed(step)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=1e-6)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return model, optimizer, checkpoint_of(model, optimizer, step)


def checkpoint_of(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        replay={"direction": torch.rand(2, 3)},
        run={"feed": [1, 2], "seconds": 0.5},
        rng=rng_state(),
    )


def with_learning(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, learning={n: v + 1 for n, v in checkpoint.model.items()})


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer, checkpoint = trained()
    loaded = load_checkpoint(save_checkpoint(tmp_path, checkpoint, keep=1))
    assert loaded.step == 3
    assert loaded.run == checkpoint.run
    assert torch.equal(loaded.replay["direction"], checkpoint.replay["direction"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model[name], tensor)
    fresh = torch.optim.Adam(model.parameters(), lr=1.0)
    fresh.load_state_dict(loaded.optimizer)
    for ours, theirs in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert torch.equal(value, theirs[name])
    assert fresh.param_groups[0]["weight_decay"] == 1e-6


def test_every_generator_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float, float]:
        return random.random(), random.gauss(), float(np.random.rand()), float(torch.rand(()))

    draw()
    state = json.loads(json.dumps(rng_state()))
    expected = draw()
    draw()
    set_rng_state(state)
    assert draw() == expected


def test_only_the_newest_and_the_untrained_stay(tmp_path: Path) -> None:
    for step in (0, 1, 2, 3):
        save_checkpoint(tmp_path, trained(step)[2], keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder_name(s) for s in (0, 2, 3)]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == folder_name(3)


def test_what_a_crash_leaves_is_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, trained(1)[2], keep=5)
    (tmp_path / f".{folder_name(2)}.123.partial").mkdir()
    (tmp_path / f".{folder_name(2)}.123.removed").mkdir()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == folder_name(1)
    save_checkpoint(tmp_path, trained(4)[2], keep=5)
    assert not list(tmp_path.glob(".*"))


def test_the_same_step_again_leaves_the_complete_one(tmp_path: Path) -> None:
    model, optimizer, checkpoint = trained()
    kept = checkpoint.model["0.weight"].clone()
    save_checkpoint(tmp_path, checkpoint, keep=2)
    with torch.no_grad():
        next(model.parameters()).zero_()
    path = save_checkpoint(tmp_path, checkpoint_of(model, optimizer, 3), keep=2)
    assert torch.equal(load_checkpoint(path).model["0.weight"], kept)
    assert [p.name for p in tmp_path.iterdir()] == [folder_name(3)]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def test_the_newest_that_can_be_read_takes_the_place_of_damaged_ones(tmp_path: Path) -> None:
    paths = [save_checkpoint(tmp_path, trained(step)[2], keep=5) for step in (1, 2, 3, 4)]
    (paths[1] / "state.json").write_bytes(b"\xff\x00[")
    cut_short(paths[2] / "model.safetensors")
    (paths[3] / "state.json").unlink()
    found = newest_readable(tmp_path)
    assert (found.path, found.checkpoint.step) == (paths[0], 1)
    for path in paths[1:]:
        assert f"{path}: not a readable checkpoint" in found.damage
    assert found.damaged == paths[:0:-1]
    assert newest_readable(tmp_path).damage == found.damage  # nothing was touched


def test_weights_that_learning_goes_on_from_come_back_next_to_their_mean(tmp_path: Path) -> None:
    checkpoint = with_learning(trained()[2])
    loaded = load_checkpoint(save_checkpoint(tmp_path, checkpoint, keep=1))
    for name, tensor in checkpoint.model.items():
        assert torch.equal(loaded.model[name], tensor)
        assert torch.equal(loaded.learning[name], tensor + 1)


@pytest.mark.parametrize("file", [*FILES, "learning.safetensors"])
def test_a_single_changed_byte_is_noticed(tmp_path: Path, file: str) -> None:
    path = save_checkpoint(tmp_path, with_learning(trained()[2]), keep=5) / file
    whole = path.read_bytes()
    for at in (len(whole) // 2, len(whole) - 3):
        changed = bytearray(whole)
        changed[at] = ord("7") if changed[at] != ord("7") else ord("8")
        path.write_bytes(changed)
        with pytest.raises(CheckpointDamaged):
            load_checkpoint(path.parent)


def test_damaged_ones_are_set_aside_under_another_name(tmp_path: Path) -> None:
    paths = [save_checkpoint(tmp_path, trained(step)[2], keep=5) for step in (1, 2)]
    cut_short(paths[1] / "state.json")
    for _ in range(2):
        set_aside(newest_readable(tmp_path).damaged)
    assert newest_readable(tmp_path).damage == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"damaged-{folder_name(2)}",
        folder_name(1),
    ]


def test_where_none_can_be_read_one_line_says_what_to_do(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, trained()[2], keep=5)
    cut_short(path / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"^[^\n]*no older one can be read; restore[^\n]*$"):
        newest_readable(tmp_path)


def test_a_damaged_checkpoint_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    _, _, checkpoint = trained()
    path = save_checkpoint(tmp_path, checkpoint, keep=2)
    cut_short(path / "model.safetensors")
    assert save_checkpoint(tmp_path, checkpoint, keep=2) == path
    assert load_checkpoint(path).step == 3
    assert [p.name for p in tmp_path.iterdir()] == [folder_name(3)]


def test_damaged_checkpoints_of_later_steps_push_none_out(tmp_path: Path) -> None:
    for step in (5, 6, 7):
        cut_short(save_checkpoint(tmp_path, trained(step)[2], keep=9) / "state.json")
    for step in (0, 2, 3, 4):
        save_checkpoint(tmp_path, trained(step)[2], keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        folder_name(s) for s in (0, 3, 4, 5, 6, 7)
    ]


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("damaged", FILES)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, damaged: str) -> None:
    path = save_checkpoint(tmp_path, trained()[2], keep=1)
    cut_short(path / damaged)
    with pytest.raises(CheckpointError, match=r"^[^\n]*not a readable checkpoint[^\n]*$"):
        load_checkpoint(path)


@pytest.mark.parametrize("version", [1, 99])
def test_a_checkpoint_of_another_version_says_so(tmp_path: Path, version: int) -> None:
    path = save_checkpoint(tmp_path, trained()[2], keep=1)
    state = json.loads((path / "state.json").read_text())
    del state["readable_from"]
    (path / "state.json").write_text(json.dumps(state | {"version": version}))
    with pytest.raises(
        CheckpointError, match=rf"version {version}, this program reads \d+ to \d+; use the setcon"
    ):
        load_checkpoint(path)


def test_what_a_later_version_has_added_is_passed_over(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint_module, "VERSION", 3)
    monkeypatch.setattr(checkpoint_module, "READABLE_FROM", 2)
    later = trained()[2]
    path = save_checkpoint(tmp_path, replace(later, run=later.run | {"added": [1, 2]}), keep=1)
    monkeypatch.undo()
    assert json.loads((path / "state.json").read_text())["version"] == 3
    assert load_checkpoint(path).step == later.step


def test_a_checkpoint_that_only_later_versions_read_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint_module, "VERSION", 4)
    monkeypatch.setattr(checkpoint_module, "READABLE_FROM", 3)
    path = save_checkpoint(tmp_path, trained()[2], keep=1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"version 4, this program reads 2 to 2; use the"):
        load_checkpoint(path)


def test_a_model_of_other_sizes_is_refused_by_name(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, trained()[2], keep=1)
    other = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    with pytest.raises(CheckpointError, match=r"0\.bias is \(4,\), .* needs \(5,\)"):
        load_into(other, load_checkpoint(path).model, where=path)
    with pytest.raises(CheckpointError, match=r"the configured model has no 0\.bias"):
        load_into(nn.Linear(2, 2), load_checkpoint(path).model, where=path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="could not be written"):
        save_checkpoint(tmp_path / "checkpoints", trained()[2], keep=1)


@pytest.mark.parametrize("step", [1 << 60, -1, 2.5, True, None, "3"])
def test_a_step_that_cannot_be_is_damage(tmp_path: Path, step) -> None:
    path = save_checkpoint(tmp_path, trained(3)[2], keep=5)
    state = json.loads((path / "state.json").read_text())
    del state["crc32c"]["state"]
    state["step"] = step
    rest = {name: value for name, value in state.items() if name != "crc32c"}
    state["crc32c"]["state"] = crc32c(json.dumps(rest).encode())
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointDamaged, match="step must be a number in 0"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("weight", "complaint"),
    [
        (torch.full((4,), float("nan")), "not finite"),
        (torch.full((4,), float("inf")), "not finite"),
        (torch.zeros(4, dtype=torch.complex64), "complex numbers"),
    ],
)
def test_weights_that_are_no_numbers_are_damage_and_an_older_checkpoint_is_taken(
    tmp_path: Path, weight, complaint
) -> None:
    _, _, good = trained(2)
    save_checkpoint(tmp_path, good, keep=5)
    path = save_checkpoint(
        tmp_path, replace(good, step=3, model=good.model | {"0.bias": weight}), keep=5
    )
    with pytest.raises(CheckpointDamaged, match=f"0.bias holds .*{complaint}"):
        load_checkpoint(path)
    assert newest_readable(tmp_path).checkpoint.step == 2


def test_weights_of_another_type_belong_to_another_model(tmp_path: Path) -> None:
    model, _, held = trained()
    with pytest.raises(CheckpointError, match=r"0\.bias holds torch\.float64, the configured"):
        load_into(model, held.model | {"0.bias": torch.zeros(4).double()}, where=tmp_path)


def test_a_state_that_is_too_deep_is_damage(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, trained()[2], keep=5)
    (path / "state.json").write_text('{"version": 2, "run": ' + "[" * 100_000)
    with pytest.raises(CheckpointDamaged, match="not a readable checkpoint"):
        load_checkpoint(path)
