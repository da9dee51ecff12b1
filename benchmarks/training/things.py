"""Objects found by the preset `things` on held-out footage, next to what needs no learning.

    python benchmarks/training/things.py [--scenes tumble room three ...] [--seeds 0 1 2]
                                         [--steps N] [--set KEY=VALUE ...] [--folder DIR]

Recordings of 1,920 frames at 128x128, of which the last fifth of every block is held out:

    tumble    textured objects that fall and collide, moving camera; every 24 frames another world
    room      the same in one world
    three     three objects that hands move about on a table, moving camera, 10 frames a second
    seven     seven of them
    sprites   plain shapes that share their colours, over one another
    balls     three of the paper's balls, of radius 0.14, that move 0.1 sides a frame

`tumble` and `room` need the extra `tumble`. FG-ARI, ARI and mBO are of the segments that slots
read, without a probe. Segmentations that need no model are told how many objects there are, on
average. A run that is there is not made again, so an interrupted benchmark goes on where it was.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from online.scores.evaluation import load_evaluation

CLI = [sys.executable, "-m", "setcon"]
FRAMES = 1920
SCENES: dict[str, tuple[list[str], list[str]]] = {
    "tumble": (["tumble"], []),
    "room": (
        ["tumble", "--set", "worlds=1", "--set", "min_objects=3", "--set", "max_objects=6"],
        [],
    ),
    "three": (["three-object"], ["--fps", "10"]),
    "seven": (["seven-object"], ["--fps", "10"]),
    "quilt": (["quilt"], []),
    "sprites": (["sprites", "--set", "size=128"], []),
    "balls": (["balls", "--set", "size=128", "--set", "radius=0.14", "--set", "speed=0.1"], []),
}
"""Arguments of `setcon scene` and of `setcon ingest`."""
MEASURES = ("fg_ari", "ari", "mbo")


def make_store(name: str, folder: Path) -> Path:
    """The recording of a scene; its seed is none of those that learn from it."""
    store, video = folder / name, folder / f"{name}.mp4"
    scene, ingest = SCENES[name]
    frames = FRAMES * (3 if ingest else 1)
    if not video.exists():
        call("scene", *scene, str(video), "--frames", str(frames), "--seed", "1000")
    if not store.exists():
        call("ingest", str(video), str(store), "--size", "128", *ingest)
    return store


def call(*words: str) -> None:
    """Run a command of the program; its output is shown where it fails."""
    done = subprocess.run([*CLI, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"setcon {' '.join(words)}\n{done.stdout}{done.stderr}")


def learn(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The scores of a run on a scene."""
    run = options.folder / "-".join([f"run-{name}-{seed}", str(options.steps), *options.set])
    settings = (f"training.seed={seed}", f"training.steps={options.steps}", *options.set)
    return scores(make_store(name, options.folder), run, settings)


def train_once(store: Path, run: Path, settings: Sequence[str], *, preset: str) -> None:
    """`setcon train`, unless the run is there and complete."""
    if (run / "finished").exists():
        return
    started = time.monotonic()
    words = [word for setting in settings for word in ("--set", setting)]
    call("train", str(store), "--run", str(run), "--preset", preset, *words)
    (run / "finished").touch()
    print(f"{run.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def scores(store: Path, run: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Masks' scores of the trained and the untrained model, and of what needs none."""
    train_once(store, run, settings, preset="things")
    found = load_evaluation(max((run / "probes").iterdir()))
    rows = {
        "trained": found.trained.attention,
        "trained, alphas": found.trained.current.alphas,
        "untrained": found.untrained.attention,
    }
    if found.without_model is not None:
        for key in ("blocks", "colours", "frame_k_means", "frame_ward"):
            rows[key.replace("_", " ")] = getattr(found.without_model, key)
    return {row: asdict(measured) for row, measured in rows.items() if measured is not None}


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.scenes:
        runs = [learn(name, seed, options) for seed in options.seeds]
        print(f"\n{name:20}" + "".join(f"{measure:>24}" for measure in MEASURES))
        for row in runs[0]:
            cells = [mean_and_each([run[row][measure] for run in runs]) for measure in MEASURES]
            print(f"{row:20}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def mean_and_each(values: list[float]) -> str:
    """The mean, and in brackets what it is of."""
    each = " ".join(f"{value:.2f}" for value in values)
    return f"{statistics.mean(values):.3f} ({each})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-things"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
