"""Commands on one thread of torch, so that as many of them as there are cores run side by side."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

CLI = [sys.executable, "-m", "setcon"]


def call(command: list[str]) -> str:
    """What a command prints; SystemExit with all that it said where it fails."""
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])}: {done.stdout}{done.stderr}")
    return done.stdout


def train_once(
    store: Path, run: Path, settings: Iterable[str], *limits: str, preset: str = "demo"
) -> None:
    """`setcon train`, unless the run is there and complete."""
    if not (run / "finished").exists():
        told = [word for setting in settings for word in ("--set", setting)]
        call([*CLI, "train", str(store), "--run", str(run), "--preset", preset, *limits, *told])
        (run / "finished").touch()
