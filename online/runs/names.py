"""Names in a run's directory, for what has to know them before torch is imported.

RUN/checkpoints/step-00001500/model.safetensors
"""

from __future__ import annotations

from pathlib import Path

from online.errors import RunError

CHECKPOINTS = "checkpoints"
CONFIG_FILE = "config.toml"
MODEL_FILE = "model.safetensors"
PREFIX = "step-"


def folder_name(step: int) -> str:
    """Name of the checkpoint and probe folders of a step; sorts by step."""
    return f"{PREFIX}{step:08d}"


def step_of(folder: Path) -> int:
    """The step that a folder of `folder_name` belongs to."""
    return int(folder.name.removeprefix(PREFIX))


def step_folders(folder: Path) -> list[Path]:
    """Those in a folder, by their steps."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def has_learned(run: Path) -> bool:
    """Whether there is a checkpoint of more than the untrained model."""
    return any(path.name != folder_name(0) for path in step_folders(run / CHECKPOINTS))


def check_run_folder(run: Path) -> None:
    """Refuse a file where the directory of a run is wanted.

    Raises RunError: it is one, or lies in one.
    """
    there = next((path for path in (run, *run.absolute().parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        raise RunError(f"{there}: is a file; give --run a directory")
