"""How much footage a model needs: learn from the first seconds, score the last forty.

    python benchmarks/paper/online_curve.py [--scene balls|room] [--seeds 0 1 2]
                                            [--seconds 5 10 ...] [--steps 1500]
                                            [--jobs 2] [--folder DIR] [--json FILE]
                                            [--plot FILE.png]

The protocol of Pirk et al. 2019: a recording of 200 s, of which the first 5, 10, 20, 40, 80, 120 or
160 s are learned from, and the last 40 s scored. Every run makes as many steps, so one that has
little footage sees it the more often; the weights are those of the last step. Baselines are the
untrained encoder and segmentations that need no model.

balls     three bouncing balls, 32x32, 15 frames a second, by the preset `demo`, 1,500 steps. Masks
          are those of the probe, which no encoder learns from and which is fitted on the first
          160 s each time. `top-1`: how often the right next frame is found among all of 60 held-out
          clips.
room      a room in 3D in which things fall, 128x128, 10 frames a second, by the preset `things`,
          500 steps (extra `tumble`). Masks are the segments that slots read, without a probe.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from one_thread import CLI, call, train_once
from paper import mean_and_each

from ingest.jobs import ingest_sources
from ingest.scenes import Scene
from ingest.scenes.balls import BallsConfig
from ingest.scenes.tumble import TumbleConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.analysis.opened import opened_run
from online.probing.footage import gather
from online.training.batch import to_images

SECONDS, HOLDOUT = 200, 0.2
LEARNED = (5, 10, 20, 40, 80, 120, 160)
MEASURES = ("FG-ARI", "mBO", "MSE share", "top-1")
BASELINES = {
    "untrained": "--",
    "blocks": ":",
    "colours": "-.",
    "frame_k_means": (0, (1, 3)),
    "frame_ward": (0, (6, 2, 1, 2, 1, 2)),
}
"""With the style of each one's line."""
Scores = dict[str, dict[str, float]]
"""The measures of `trained` and of each baseline, as far as it has them."""


def _balls(seconds: int, seed: int) -> Scene:
    return BallsConfig(num_frames=15 * seconds, fps=15, size=64, radius=0.14, speed=0.1, seed=seed)


def _room(seconds: int, seed: int) -> Scene:
    return TumbleConfig(num_frames=10 * seconds, seed=seed, worlds=1, min_objects=3, max_objects=6)


@dataclass(frozen=True)
class Subject:
    """What is filmed, and how it is learned."""

    scene: Callable[[int, int], Scene]
    """Of so many seconds, by a seed; a longer one begins like a shorter one."""
    preset: str
    size: int
    steps: int
    settings: tuple[str, ...]
    measures: tuple[str, ...]


SUBJECTS = {
    "balls": Subject(_balls, "demo", 32, 1500, (), MEASURES),
    # segments need no probe
    "room": Subject(_room, "things", 128, 500, ("probe.steps=10",), ("FG-ARI", "ARI", "mBO")),
}


def make_store(seed: int, seconds: int, options: argparse.Namespace) -> Path:
    """The first seconds of a seed's recording."""
    subject = SUBJECTS[options.scene]
    store = options.folder / f"{options.scene}-{seconds}-{seed}"
    video = store.with_suffix(".mp4")
    if not video.exists():
        render_scene(subject.scene(seconds, seed), video)
    (outcome,) = ingest_sources([str(video)], store, RecordSettings(size=subject.size))
    if outcome.error is not None:
        raise SystemExit(str(outcome.error))
    return store


def learn(seed: int, seconds: int, options: argparse.Namespace) -> Scores:
    """Train on the first seconds, and score the last forty of the whole."""
    subject, steps = SUBJECTS[options.scene], options.steps
    whole = make_store(seed, SECONDS, options)
    run = options.folder / f"run-{options.scene}-{seconds}-{seed}-{steps}"
    scores = run / "scores.json"
    if scores.exists():
        return json.loads(scores.read_text())
    told = [f"training.seed={seed}", "evaluation.every_steps=1000000000", *subject.settings]
    store = make_store(seed, seconds, options)
    limits = ("--holdout", "0", "--steps", str(steps))
    train_once(store, run, told, *limits, preset=subject.preset)
    answer = call([*CLI, "eval", str(run), str(whole), "--holdout", str(HOLDOUT), "--json"])
    evaluation = json.loads(answer)
    models, simple = ("trained", "untrained"), evaluation["without_model"]
    if subject.preset == "things":
        result = {k: _masks(evaluation[k]["attention"]) for k in models}
    else:
        found = top1(run, whole)
        result = {k: _drawn(evaluation[k]["current"]) | {"top-1": found[k]} for k in models}
    result |= {k: _masks(simple[k]) for k in simple}
    scores.write_text(json.dumps(result))
    return result


def _drawn(part: dict[str, Any]) -> dict[str, float]:
    return {**_masks(part["alphas"]), "MSE share": part["mse_share"]}


def _masks(masks: dict[str, float]) -> dict[str, float]:
    return {"FG-ARI": masks["fg_ari"], "ARI": masks["ari"], "mBO": masks["mbo"]}


@torch.no_grad()
def top1(run: Path, store: Path) -> dict[str, float]:
    """Top-1 of predictions in the held-out footage, among all its states and predictions."""
    with opened_run(run, store, holdout=HOLDOUT) as opened:
        evaluator, config = opened.evaluator, opened.trained.config
        footage = gather(opened.catalog, "held_out", clips=60, config=evaluator.clip)
        images = to_images(footage.images)
        models = {"trained": opened.trained.model, "untrained": evaluator.untrained}
        return {
            name: float(model.loss(model(images), config.loss).contrast.top1)
            for name, model in models.items()
        }


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        make_store(seed, SECONDS, options)  # which all its runs are scored on
    tasks = [(seed, seconds) for seed in options.seeds for seconds in options.seconds]
    found: dict[int, list[Scores]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda task: learn(task[0], task[1], options), tasks)
        for number, ((_, seconds), scores) in enumerate(zip(tasks, results, strict=True)):
            found.setdefault(seconds, []).append(scores)
            print(f"\r{number + 1} of {len(tasks)}{'':20}", end="", file=sys.stderr, flush=True)
    measures = SUBJECTS[options.scene].measures
    print(f"\r{'seconds':14}" + "".join(f"{name:>28}" for name in measures))
    for seconds, each in found.items():
        _row(str(seconds), [scores["trained"] for scores in each], measures)
    for name in BASELINES:  # which are the same, however much is learned from
        _row(name, [scores[name] for scores in found[options.seconds[-1]]], measures)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot is not None:
        plot(found, options.plot, measures)


def _row(name: str, each: list[dict[str, float]], measures: Sequence[str]) -> None:
    cells = [mean_and_each([s[m] for s in each if m in s], ".3f") for m in measures]
    print(f"{name:14}" + "".join(f"{cell:>28}" for cell in cells))


def plot(found: dict[int, list[Scores]], path: Path, measures: Sequence[str]) -> None:
    """One panel for each measure: the mean, and a band from the least to the greatest seed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(measures), figsize=(3.25 * len(measures), 3.6), constrained_layout=True
    )
    seconds = sorted(found)
    for axis, name in zip(axes, measures, strict=True):
        values: Any = [[scores["trained"][name] for scores in found[s]] for s in seconds]
        axis.fill_between(seconds, [min(v) for v in values], [max(v) for v in values], alpha=0.25)
        axis.plot(seconds, [statistics.mean(v) for v in values], marker="o", label="trained")
        for baseline, style in BASELINES.items():
            level = [each[baseline][name] for each in found[seconds[-1]] if name in each[baseline]]
            if level:
                axis.axhline(statistics.mean(level), color="0.35", linestyle=style, label=baseline)
        axis.set_xscale("log")
        axis.set_xticks(seconds, [str(s) for s in seconds], fontsize=7)
        axis.minorticks_off()
        axis.set_title(name)
        axis.set_xlabel("seconds learned from")
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
    lines, labels = axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=110)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How much footage a model needs.")
    parser.add_argument("--scene", choices=list(SUBJECTS), default="balls")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=int, nargs="+", default=list(LEARNED))
    parser.add_argument("--steps", type=int, help="default: 1500 for balls, 500 for the room")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("curve-runs"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="also draw them")
    options = parser.parse_args()
    options.steps = options.steps or SUBJECTS[options.scene].steps
    return options


if __name__ == "__main__":
    main()
