"""How much footage a model needs: learn from the first seconds, score the last forty.

    python benchmarks/paper/online_curve.py [--seeds 0 1 2] [--seconds 5 10 ...] [--steps 1500]
                                            [--jobs 2] [--folder DIR] [--json FILE]
                                            [--plot FILE.png]

The protocol of Pirk et al. 2019: a recording of 200 s at 15 frames a second (three bouncing balls,
32x32), of which the first 5, 10, 20, 40, 80, 120 or 160 s are learned from, and the last 40 s
scored. Every run makes as many steps, so one that has little footage sees it the more often; the
weights are those of the last step. The probe, which no encoder learns from, is fitted on the first
160 s each time. `top-1`: how often the right next frame is found among all of 60 held-out clips.
Its baselines are the untrained encoder under the same probe and, for masks alone, segmentations
that need no model.
"""

import argparse
import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from one_thread import CLI, call, train_once
from paper import mean_and_each

from ingest.jobs import ingest_sources
from ingest.scenes.balls import BallsConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.analysis.opened import opened_run
from online.probing.footage import gather
from online.training.batch import to_images

FPS, SECONDS, HOLDOUT = 15, 200, 0.2
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


def make_store(folder: Path, seed: int, seconds: int) -> Path:
    """The first seconds of a seed's recording."""
    store, video = folder / f"first-{seconds}-{seed}", folder / f"first-{seconds}-{seed}.mp4"
    if not video.exists():
        frames = seconds * FPS
        render_scene(
            BallsConfig(num_frames=frames, fps=FPS, size=64, radius=0.14, speed=0.1, seed=seed),
            video,
        )
    (outcome,) = ingest_sources([str(video)], store, RecordSettings(size=32))
    if outcome.error is not None:
        raise SystemExit(str(outcome.error))
    return store


def learn(seed: int, seconds: int, options: argparse.Namespace) -> Scores:
    """Train on the first seconds, and score the last forty of the whole."""
    whole = make_store(options.folder, seed, SECONDS)
    run = options.folder / f"run-{seconds}-{seed}-{options.steps}"
    scores = run / "scores.json"
    if scores.exists():
        return json.loads(scores.read_text())
    told = [f"training.seed={seed}", "evaluation.every_steps=1000000000"]
    store = make_store(options.folder, seed, seconds)
    train_once(store, run, told, "--holdout", "0", "--steps", str(options.steps))
    answer = call([*CLI, "eval", str(run), str(whole), "--holdout", str(HOLDOUT), "--json"])
    evaluation, found = json.loads(answer), top1(run, whole)
    simple = evaluation["without_model"]
    result = {k: _drawn(evaluation[k]["current"]) | {"top-1": found[k]} for k in found}
    result |= {k: _masks(simple[k]) for k in simple}
    scores.write_text(json.dumps(result))
    return result


def _drawn(part: dict[str, Any]) -> dict[str, float]:
    return {**_masks(part["alphas"]), "MSE share": part["mse_share"]}


def _masks(masks: dict[str, float]) -> dict[str, float]:
    return {"FG-ARI": masks["fg_ari"], "mBO": masks["mbo"]}


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
        make_store(options.folder, seed, SECONDS)  # which all its runs are scored on
    tasks = [(seed, seconds) for seed in options.seeds for seconds in options.seconds]
    found: dict[int, list[Scores]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda task: learn(task[0], task[1], options), tasks)
        for number, ((_, seconds), scores) in enumerate(zip(tasks, results, strict=True)):
            found.setdefault(seconds, []).append(scores)
            print(f"\r{number + 1} of {len(tasks)}{'':20}", end="", file=sys.stderr, flush=True)
    print(f"\r{'seconds':14}" + "".join(f"{name:>28}" for name in MEASURES))
    for seconds, each in found.items():
        _row(str(seconds), [scores["trained"] for scores in each])
    for name in BASELINES:  # which are the same, however much is learned from
        _row(name, [scores[name] for scores in found[options.seconds[-1]]])
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot is not None:
        plot(found, options.plot)


def _row(name: str, each: list[dict[str, float]]) -> None:
    cells = [mean_and_each([s[m] for s in each if m in s], ".3f") for m in MEASURES]
    print(f"{name:14}" + "".join(f"{cell:>28}" for cell in cells))


def plot(found: dict[int, list[Scores]], path: Path) -> None:
    """One panel for each measure: the mean, and a band from the least to the greatest seed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(MEASURES), figsize=(13, 3.6), constrained_layout=True)
    seconds = sorted(found)
    for axis, name in zip(axes, MEASURES, strict=True):
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=int, nargs="+", default=list(LEARNED))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("curve-runs"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="also draw them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
