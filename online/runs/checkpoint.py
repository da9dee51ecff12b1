"""Checkpoints: directories of safetensors and JSON, written under another name and renamed.

    checkpoints/step-00001500/
        model.safetensors       parameters and buffers that are learned: none of what is frozen
        learning.safetensors    where that is a running mean: the weights that learning goes on from
        optimizer.safetensors   moments, flattened to "parameter index/name"
        replay.safetensors      what MinRed knows of the clips it holds; empty for a reservoir
        state.json              version, step, every RNG, replay indices, feed's cursor, checksums

A folder that carries the final name is complete: a crash leaves only folders of other names.
A disk may damage one all the same; then the newest older one that can be read takes its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ingest.disk.checksum import crc32c
from ingest.disk.durable import make_folder, written_folder
from ingest.disk.inside import read_plain
from online.errors import CheckpointDamaged, CheckpointError
from online.runs.names import MODEL_FILE, PREFIX, folder_name, step_folders
from online.runs.weights import load_into, on_host

VERSION = 2
READABLE_FROM = 2
"""The oldest program that can read what this one writes: a version that only adds fields does not
raise it, as older programs ignore what they do not know."""
OLDEST = 2
"""The oldest version that this program reads."""
MAX_STEP = 1 << 40
MAX_STATE_BYTES, MAX_TENSOR_BYTES = 1 << 30, 64 << 30
_TENSORS = (MODEL_FILE, "optimizer.safetensors", "replay.safetensors")
_LEARNING_FILE = "learning.safetensors"
_UNREADABLE = (
    *(OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError),
    MemoryError,
    SafetensorError,
)
"""What files that are cut short, garbled or gone raise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """All that a run needs to continue as if it had never stopped."""

    step: int
    model: dict[str, Tensor]
    """`learned_state` of the model that is evaluated."""
    learning: dict[str, Tensor] = field(default_factory=dict)
    """That of the model that learns, where `model` is a running mean."""
    optimizer: dict[str, Any]
    """`Optimizer.state_dict()`."""
    replay: dict[str, Tensor]
    """`Replay.arrays()`."""
    run: dict[str, Any]
    """JSON-able state of the rest of the run: replay, feed, counters, elapsed seconds."""
    rng: dict[str, Any]
    """JSON-able state of every random generator, from `rng_state`."""


def shards_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """`feed` and `replay` of each shard in `Checkpoint.run`; one that lists none has one."""
    return run.get("shards", [run])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The newest checkpoint that can be read."""

    path: Path
    checkpoint: Checkpoint
    damage: str
    """What is wrong with the newer ones, newest first; empty where there are none."""
    damaged: list[Path]
    """The newer ones."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint under a run's `checkpoints` directory, which is made if it is missing.

    Older ones are deleted, except the newest `keep` and the untrained one. A checkpoint of the same
    step that can be read stays as it is: a run that resumes repeats itself. Raises CheckpointError
    where it could not be written; earlier checkpoints stay.
    """
    target = folder / folder_name(checkpoint.step)
    if _is_readable(target):
        return target
    try:
        make_folder(folder)
        with written_folder(target) as partial:
            _write_files(partial, checkpoint)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target}: checkpoint could not be written ({error}); earlier ones are kept, "
            "free some space and run the same command again"
        ) from error
    _remove_old(folder, newest=target, keep=keep)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint under a run's `checkpoints` directory, if there is one.

    Whether it can be read is for `newest_readable` to say.
    """
    there = step_folders(folder)
    return there[-1] if there else None


def newest_readable(folder: Path) -> Found:
    """Read the newest checkpoint under `folder` that is not damaged.

    Raises CheckpointError: there is none, or it is of another version.
    """
    damaged: dict[Path, CheckpointDamaged] = {}
    for path in reversed(step_folders(folder)):
        try:
            return Found(
                path=path,
                checkpoint=load_checkpoint(path),
                damage="; ".join(map(str, damaged.values())),
                damaged=list(damaged),
            )
        except CheckpointDamaged as error:
            damaged[path] = error
    if not damaged:
        raise CheckpointError(f"{folder}: has no checkpoint yet; train the run first")
    raise CheckpointError(
        f"{next(iter(damaged.values()))}, and no older one can be read; restore {folder} from a "
        "copy, or start again with a new --run directory"
    )


def set_aside(damaged: Sequence[Path]) -> None:
    """Give damaged checkpoints a name that is not looked at, so that they are reported once."""
    for path in damaged:
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint directory.

    Raises CheckpointDamaged: it is missing or damaged; CheckpointError: it is of another version.
    """
    try:
        state = json.loads(read_plain(path / "state.json", most_bytes=MAX_STATE_BYTES))
        version = state["version"]
        if version < OLDEST or state.get("readable_from", version) > VERSION:
            raise CheckpointError(
                f"{path}: is a checkpoint of version {version}, this program reads "
                f"{OLDEST} to {VERSION}; use the setcon that wrote it"
            )
        checksums = state.pop("crc32c")
        names = [*_TENSORS, *({_LEARNING_FILE} & checksums.keys())]
        files = {name: read_plain(path / name, most_bytes=MAX_TENSOR_BYTES) for name in names}
        if any(checksums.get(name) != of for name, of in _checksums(state, files).items()):
            raise ValueError("a checksum does not hold")
        model, moments, replay = (load(files[name]) for name in _TENSORS)
        learning = load(files[_LEARNING_FILE]) if _LEARNING_FILE in files else {}
        _check_step(state["step"])
        for tensors in (model, learning):
            _check_real(tensors)
            _check_finite(tensors)
        _check_real(moments)
        return Checkpoint(
            step=state["step"],
            model=model,
            learning=learning,
            optimizer=_join_optimizer(state["optimizer"], moments),
            replay=replay,
            run=state["run"],
            rng=state["rng"],
        )
    except _UNREADABLE as error:
        raise CheckpointDamaged(
            f"{path}: not a readable checkpoint ({type(error).__name__}: {error})"
        ) from error


def load_untrained(model: nn.Module, path: Path) -> str:
    """Put the checkpoint of step 0 into `model`, which the run's seed has made.

    Where it is damaged the model stays as it is, and what is wrong is returned, else "".

    Raises CheckpointError: it belongs to another configuration, or is of another version.
    """
    try:
        load_into(model, load_checkpoint(path).model, where=path)
    except CheckpointDamaged as error:
        return f"{error}; the untrained model is made again from training.seed"
    return ""


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    described, moments = _split_optimizer(checkpoint.optimizer)
    parts = (checkpoint.model, moments, checkpoint.replay)
    tensors: dict[str, dict[str, Tensor]] = dict(zip(_TENSORS, parts, strict=True))
    if checkpoint.learning:
        tensors[_LEARNING_FILE] = checkpoint.learning
    files = {name: save(on_host(held)) for name, held in tensors.items()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    state = {
        "version": VERSION,
        "readable_from": READABLE_FROM,
        "step": checkpoint.step,
        "optimizer": described,
        "rng": checkpoint.rng,
        "run": checkpoint.run,
    }
    summed = state | {"crc32c": _checksums(state, files)}
    (folder / "state.json").write_text(json.dumps(summed))


def _checksums(state: dict[str, Any], files: dict[str, bytes]) -> dict[str, int]:
    """Checksums of the tensor files, whose format has none, and of the rest as JSON."""
    parts = files | {"state": json.dumps(state).encode()}
    return {name: crc32c(data) for name, data in parts.items()}


def _check_step(step: object) -> None:
    if type(step) is not int or not 0 <= step <= MAX_STEP:
        raise ValueError(f"step must be a number in 0..{MAX_STEP}, got {step!r}")


def _check_real(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise ValueError(f"{name} holds complex numbers")


def _check_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")


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


def _is_readable(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except CheckpointDamaged:
        return False
    return True


def _remove_old(folder: Path, *, newest: Path, keep: int) -> None:
    """Delete old checkpoints up to `newest`: later ones are damaged, and the run will redo them."""
    old = [path for path in step_folders(folder) if path.name <= newest.name][:-keep]
    for path in old:
        if path.name != folder_name(0):
            shutil.rmtree(path, ignore_errors=True)
    for leftover in folder.glob(f".{PREFIX}*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
