"""What bfloat16 costs in quality and gains in time: the same runs in both.

    python benchmarks/training/precision.py [--preset demo] [--steps 1000] [--seeds 0 1 2 3 4]
                                            [--set KEY=VALUE ...] [--folder DIR]

A recording of the paper's balls, 32x32, seed 1000, of which a fifth is held out; runs take turns.
FG-ARI and mBO are of the alphas of s_t on held-out frames, and seconds a step are those of
learning, without probes. A run that is there is not made again.
"""

import argparse
import json
from pathlib import Path

from things import call, mean_and_each, train_once

from online.scores.evaluation import load_evaluation

FRAMES = 12_000


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    store = _store(options.folder)
    found: dict[str, list[tuple[float, float, float]]] = {"float32": [], "bfloat16": []}
    for seed in options.seeds:
        for precision, runs in found.items():
            name = [options.preset, precision, str(seed), str(options.steps), *options.set]
            run = options.folder / "-".join(name)
            settings = (
                f"training.precision={precision}",
                f"training.seed={seed}",
                f"training.steps={options.steps}",
                *options.set,
            )
            train_once(store, run, settings, preset=options.preset)
            runs.append(_scores(run))
            print(
                f"{run.name}: {runs[-1][0]:.3f} {runs[-1][1]:.3f} {runs[-1][2]:.4f} s", flush=True
            )
    for precision, runs in found.items():
        columns = [mean_and_each(list(values)) for values in zip(*runs, strict=True)]
        print(f"{precision:10} FG-ARI {columns[0]}  mBO {columns[1]}  s/step {columns[2]}")


def _store(folder: Path) -> Path:
    store, video = folder / "balls", folder / "balls.mp4"
    if not store.exists():
        call("scene", "balls", str(video), "--frames", str(FRAMES), "--seed", "1000")
        call("ingest", str(video), str(store), "--size", "32")
    return store


def _scores(run: Path) -> tuple[float, float, float]:
    """FG-ARI, mBO, and seconds a step."""
    alphas = load_evaluation(max((run / "probes").iterdir())).trained.current.alphas
    assert alphas is not None
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if line["kind"] == "step"]
    first, last = steps[0], steps[-1]
    seconds = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    return alphas.fg_ari, alphas.mbo, seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-precision"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
