"""Checkpoints: directories of safetensors and JSON, written beside, fsynced and renamed.

    checkpoints/step-00001500/
        model.safetensors       parameters and buffers
        optimizer.safetensors   moments, flattened to "parameter index/name"
        state.json              version, step, every RNG, replay indices, the feed's cursor

A folder that carries the final name is complete: whatever a crash leaves behind has another name.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from online.errors import CheckpointError

VERSION = 1
PREFIX = "step-"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """All that a run needs to continue as if it had never stopped."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    """``Optimizer.state_dict()``."""
    run: dict[str, Any]
    """JSON-able state of the rest of the run: replay, feed, counters, elapsed seconds."""
    rng: dict[str, Any]
    """JSON-able state of every random generator, from ``rng_state``."""


def folder_name(step: int) -> str:
    """Name of the checkpoint and probe folders of a step; sorts by step."""
    return f"{PREFIX}{step:08d}"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write ``checkpoint`` under ``folder``; the newest ``keep`` stay, and the untrained one.

    A complete checkpoint of the same step stays as it is: a run that resumes repeats itself.

    Args:
        folder: the run's ``checkpoints`` directory, made if missing.
        checkpoint: what to write.
        keep: how many of the newest stay.

    Raises:
        CheckpointError: it could not be written; earlier checkpoints are untouched.
    """
    target = folder / folder_name(checkpoint.step)
    if (target / "state.json").is_file():
        return target
    partial = folder / f".{target.name}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _write_files(partial, checkpoint)
        partial.rename(target)
        _fsync_path(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"{target}: checkpoint could not be written ({error}); earlier ones are kept, "
            "free some space and run the same command again"
        ) from error
    _remove_old(folder, keep=keep)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint under a run's ``checkpoints`` directory, if there is one."""
    complete = _complete(folder)
    return complete[-1] if complete else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint directory.

    Raises:
        CheckpointError: it is missing, damaged, or of a newer version.
    """
    try:
        state = json.loads((path / "state.json").read_text())
        if state["version"] > VERSION:
            raise CheckpointError(
                f"{path}: checkpoint version {state['version']} is newer than this program's "
                f"{VERSION}; update setcon"
            )
        return Checkpoint(
            step=state["step"],
            model=load_file(path / "model.safetensors"),
            optimizer=_join_optimizer(
                state["optimizer"], load_file(path / "optimizer.safetensors")
            ),
            run=state["run"],
            rng=state["rng"],
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {error})"
        ) from error


def load_into(model: torch.nn.Module, tensors: dict[str, Tensor], *, where: Path) -> None:
    """Put checkpoint tensors into ``model``.

    Raises:
        CheckpointError: a name or a size differs, naming the first one.
    """
    own = model.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        side = "the checkpoint lacks" if name in own else "the configured model has no"
        raise CheckpointError(f"{where}: {side} {name}; it belongs to another configuration")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: {name} is {tuple(tensor.shape)}, the configured model needs "
                f"{tuple(own[name].shape)}; it belongs to another configuration"
            )
    model.load_state_dict(tensors)


def rng_state() -> dict[str, Any]:
    """State of the python, numpy and torch generators, and of every CUDA device, JSON-able."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "python": [version, list(internal), gauss],
        "numpy": {
            **numpy_state,
            "state": {
                "key": numpy_state["state"]["key"].tolist(),
                "pos": numpy_state["state"]["pos"],
            },
        },
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": [s.numpy().tobytes().hex() for s in torch.cuda.get_rng_state_all()],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Undo everything drawn since ``rng_state``."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = state["numpy"]
    np.random.set_state(
        {
            **numpy_state,
            "state": {
                "key": np.array(numpy_state["state"]["key"], dtype=np.uint32),
                "pos": numpy_state["state"]["pos"],
            },
        }
    )
    torch.set_rng_state(_bytes_tensor(state["torch"]))
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_bytes_tensor(s) for s in state["cuda"]])


def _bytes_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    described, moments = _split_optimizer(checkpoint.optimizer)
    save_file(_contiguous(checkpoint.model), folder / "model.safetensors")
    save_file(_contiguous(moments), folder / "optimizer.safetensors")
    state = {
        "version": VERSION,
        "step": checkpoint.step,
        "optimizer": described,
        "rng": checkpoint.rng,
        "run": checkpoint.run,
    }
    (folder / "state.json").write_text(json.dumps(state))
    for path in folder.iterdir():
        _fsync_path(path)
    _fsync_path(folder)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses channels_last and shared memory; a copy on the host is neither
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _split_optimizer(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        scalars[str(index)] = {}
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                scalars[str(index)][name] = value
    return {"param_groups": state["param_groups"], "scalars": scalars}, tensors


def _join_optimizer(described: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in described["scalars"].items()
    }
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        state[int(index)][name] = tensor
    return {"state": state, "param_groups": described["param_groups"]}


def _complete(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(f"{PREFIX}*") if (p / "state.json").is_file())


def _remove_old(folder: Path, *, keep: int) -> None:
    old = _complete(folder)[:-keep]
    for path in old:
        if path.name != folder_name(0):
            shutil.rmtree(path, ignore_errors=True)
    for leftover in folder.glob(f".{PREFIX}*.partial"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)


def _fsync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
