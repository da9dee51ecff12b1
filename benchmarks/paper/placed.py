"""How often every ball gets a slot of its own, over many seeds: the short way to compare settings.

    python benchmarks/paper/placed.py [--scene slow-balls] [--also KEY=VALUE,... ...]
                                      [--seeds 0 1 ...] [--steps 1500] [--jobs 2] [--folder DIR]

A run of a few minutes ends with each ball in a slot of its own, or with two of them mixed in two
slots, and rounding decides which: three seeds under a full probe cannot distinguish two settings.
Here the recordings and settings are those of `paper.py`, of which there are three for each scene,
a seed decides the model, and training ends after --steps steps; the probe has one. A ball is
placed if one slot alone gives its place, by a linear map (R² of 0.95 and more) on held-out
frames.

A run that is there is not made again, so an interrupted benchmark goes on where it was.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from one_thread import train_once
from paper import SCENES, make_store, settings

from online.scores.evaluation import Placed, load_evaluation

RECORDINGS = 3
PRESET = "as it is"


def learn(also: str, seed: int, store: Path, options: argparse.Namespace) -> list[Placed]:
    """The slots that place each ball best, after --steps steps."""
    run = options.folder / f"placed-{options.scene}-{options.steps}-{also.replace(' ', '-')}-{seed}"
    more = () if also == PRESET else tuple(also.split(","))
    told = [*settings(options.scene, seed, more), "probe.steps=1"]
    limits = ["--steps", str(options.steps), "--holdout", str(SCENES[options.scene].holdout)]
    train_once(store, run, told, *limits)
    places = load_evaluation(max((run / "probes").iterdir())).trained.places
    if not places:
        raise SystemExit(f"{run}: nothing is known of places")
    return places


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    stores = [make_store(options.scene, options.folder, number) for number in range(RECORDINGS)]
    tasks = [(also, seed) for also in (PRESET, *options.also) for seed in options.seeds]

    def train(task: tuple[str, int]) -> list[Placed]:
        also, seed = task
        return learn(also, seed, stores[seed % RECORDINGS], options)

    found: dict[str, list[list[Placed]]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(train, tasks)
        for number, ((also, _), places) in enumerate(zip(tasks, results, strict=True)):
            found.setdefault(also, []).append(places)
            print(f"\r{number + 1} of {len(tasks)}{'':20}", end="", file=sys.stderr, flush=True)
    print(f"\r{'':44}{'all placed':>12}{'balls placed':>14}  of each seed the least R²")
    for also, each in found.items():
        known = [[place.is_known for place in places] for places in each]
        whole, balls = sum(map(all, known)), sum(map(sum, known))
        least = " ".join(f"{min(place.r2 for place in places):.2f}" for places in each)
        shares = f"{whole} of {len(each)}", f"{balls} of {sum(map(len, known))}"
        print(f"{also:44}{shares[0]:>12}{shares[1]:>14}  {least}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How often every ball gets a slot of its own.")
    parser.add_argument("--scene", choices=list(SCENES), default="balls")
    parser.add_argument("--also", nargs="+", default=[], metavar="KEY=VALUE,...")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(12)))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("paper-runs"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
