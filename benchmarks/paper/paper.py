"""The table of the paper on one small machine: SetCon and what it must beat, under one probe.

    python benchmarks/paper/paper.py [--scenes balls gridworld ...] [--ways slot-wise ...]
                                     [--also KEY=VALUE,... ...] [--seeds 0 1 2] [--starts 1]
                                     [--minutes 10] [--jobs 2] [--folder DIR] [--json FILE]

Each way of training an encoder gets as many minutes of one thread, of learning, not of probing:

SetCon          `setcon train` as it is, in the order of time
shuffled        the same, of footage in random order
slot-wise       the same with loss.unit=slot: each slot index contrasted by itself
reconstruction  encoder, transition and decoder trained together to draw the frames from s_t and p_t
untrained       the encoder before the first step

SetCon and untrained are always there; --ways chooses among the others, and each --also adds a row:
SetCon with these settings laid over. Further rows are the last s_t copied in place of p_t and, for
masks alone, segmentations that need no model. MSE is in [-1, 1] units, as in the paper, and as a
share of the mean frame's; both on held-out frames.

With --starts N each run of `setcon train` is made N times on the same recording, with other seeds
of training, and the one whose slots are most exclusive as training ends is scored. That choice
takes neither masks nor held-out footage, but N times the minutes; reconstruction is run once.

balls      1,000 sequences of 12 frames, 32x32, three balls of radius 0.14, at 0.1 sides a frame
slow-balls the same with a radius of 0.12 and 0.03 sides a frame: about those of the generator of
           Sutskever et al. (2008), from which others have taken theirs
gridworld  2,000 sequences of 8 frames, 5x5, three objects of one pixel
sprites    12,000 frames, 32x32, three sprites of the same two colours in patterns of their own
           over a drifting texture: what colours cannot take apart
three-object, seven-object
           after the recordings of the 2021 port: half an hour at 30 frames a second, of which
           five are kept, at 64x64

A run that is there is not made again, so an interrupted benchmark goes on where it was.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from one_thread import call, train_once
from torch import Tensor

from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.scenes import Scene as AnyScene
from ingest.scenes.balls import BallsConfig
from ingest.scenes.gridworld import GridworldConfig
from ingest.scenes.sprites import SpritesConfig
from ingest.scenes.tabletop import SevenObjectConfig, ThreeObjectConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.config import load_preset
from online.probing.evaluator import Evaluator
from online.probing.footage import gather
from online.reports.compare import late_exclusivity
from online.runs.log import RunLog, read_run
from online.scores.evaluation import EncoderScores, Evaluation, ReconstructionScores
from online.training.batch import to_images
from online.training.models import arranged, untrained_model, untrained_twin
from setcon.probe import DecoderProbe


@dataclass(frozen=True)
class Scene:
    """A recording, and how it is learned from."""

    config: Callable[[int], AnyScene]
    size: int
    holdout: float
    settings: tuple[str, ...]
    fps: float | None = None


TABLETOP = (
    *("stream.clip_length=10", "model.encoder.patch=4", "model.slot_attention.slot_size=32"),
    "replay.long_term_bytes=200000000",
)
BALLS = Scene(
    config=lambda seed: BallsConfig(
        num_frames=12_000, size=64, radius=0.14, speed=0.1, episode_frames=12, seed=seed
    ),
    size=32,
    holdout=0.128,
    settings=("stream.clip_length=10", "replay.long_term_bytes=100000000"),
)
SCENES = {
    "balls": BALLS,
    "slow-balls": replace(
        BALLS,
        config=lambda seed: BallsConfig(
            num_frames=12_000, size=64, radius=0.12, speed=0.03, episode_frames=12, seed=seed
        ),
    ),
    "gridworld": Scene(
        config=lambda seed: GridworldConfig(num_frames=16_000, seed=seed),
        size=5,
        holdout=0.128,
        settings=(
            *("stream.clip_length=6", "model.encoder.patch=1", "training.batch_clips=48"),
            "replay.long_term_bytes=100000000",
        ),
    ),
    "sprites": Scene(
        config=lambda seed: SpritesConfig(
            num_frames=12_000, num_sprites=3, speed=0.05, same_colours=True, seed=seed
        ),
        size=32,
        holdout=0.128,
        settings=("stream.clip_length=10", "replay.long_term_bytes=100000000"),
    ),
    "three-object": Scene(
        config=lambda seed: ThreeObjectConfig(num_frames=54_000, seed=seed),
        fps=5.0,
        size=64,
        holdout=0.2,
        settings=(*TABLETOP, "model.slot_attention.num_slots=5"),
    ),
    "seven-object": Scene(
        config=lambda seed: SevenObjectConfig(num_frames=54_000, seed=seed),
        fps=5.0,
        size=64,
        holdout=0.2,
        settings=(*TABLETOP, "model.slot_attention.num_slots=9"),
    ),
}


NEXT_START = 100
"""Added to the seed of training for each further start; recordings keep theirs."""
CONTRASTIVE: dict[str, tuple[str, ...]] = {
    "SetCon": (),
    "shuffled": ("stream.order=shuffled",),
    "slot-wise": ("loss.unit=slot",),
}
RECONSTRUCTION = "reconstruction"
OTHERS = ["shuffled", "slot-wise", RECONSTRUCTION]


def settings(scene: str, seed: int, more: tuple[str, ...] = ()) -> list[str]:
    """Laid over the preset `demo`."""
    return [
        *(f"training.seed={seed}", "training.threads=1", "training.steps=100000000"),
        *("evaluation.every_steps=1000000000", "evaluation.train_clips=400"),
        *("evaluation.held_out_clips=128", "replay.samples_per_insert=50"),
        *("probe.steps=4000", "probe.learning_rate=4e-3"),
        *SCENES[scene].settings,
        *more,
    ]


def make_store(scene: str, folder: Path, seed: int) -> Path:
    """The recording of a seed, ingested."""
    store, video = folder / f"{scene}-{seed}", folder / f"{scene}-{seed}.mp4"
    if not video.exists():
        render_scene(SCENES[scene].config(seed), video)
    (outcome,) = ingest_sources(
        [str(video)], store, RecordSettings(size=SCENES[scene].size, fps=SCENES[scene].fps)
    )
    if outcome.error is not None:
        raise SystemExit(str(outcome.error))
    return store


@dataclass(frozen=True)
class Task:
    """A cell of the table, for one seed."""

    way: str
    scene: str
    seed: int
    store: Path


def contrast(task: Task, options: argparse.Namespace) -> Evaluation:
    """Train with `setcon train`, once for each start; the scores of the run that counts."""
    runs = [read_run(_train(task, start, options)) for start in range(options.starts)]
    run = max(runs, key=_exclusivity) if len(runs) > 1 else runs[0]
    if run.evaluation is None:
        raise SystemExit(f"{run.path}: has no scores; move it away, to make it again")
    return run.evaluation


def _exclusivity(run: RunLog) -> float:
    found = late_exclusivity(run)
    if found is None:
        raise SystemExit(f"{run.path}: its log has no exclusivity; move it away, to make it again")
    return found


def _train(task: Task, start: int, options: argparse.Namespace) -> Path:
    seed = task.seed + NEXT_START * start
    of_recording = f"{task.scene}-{task.seed}-{task.way}-{options.minutes:g}-minutes"
    run = options.folder / (f"{of_recording}-seed-{seed}" if start else of_recording)
    limits = ["--minutes", str(options.minutes), "--holdout", str(SCENES[task.scene].holdout)]
    train_once(task.store, run, settings(task.scene, seed, CONTRASTIVE[task.way]), *limits)
    return run


def reconstruct(task: Task, options: argparse.Namespace) -> Evaluation:
    """Train by reconstruction in a process of its own; its scores."""
    name = f"{task.scene}-{task.seed}-{RECONSTRUCTION}-{options.minutes:g}-minutes.json"
    scores = options.folder / name
    if not scores.exists():
        inner = ["--inner", str(task.store), str(scores)]
        inner += ["--seeds", str(task.seed), "--scenes", task.scene]
        call([sys.executable, __file__, *inner, "--minutes", str(options.minutes)])
    return msgspec.json.decode(scores.read_bytes(), type=Evaluation)


def learn_to_draw(store: Path, out: Path, scene: str, seed: int, minutes: float) -> None:
    """The baseline with a decoder in training, on clips in random order."""
    torch.set_num_threads(1)
    config = load_preset("demo", settings(scene, seed))
    device = torch.device("cpu")
    model = arranged(untrained_model(config.model, seed=seed), config.training, device)
    untrained = untrained_twin(model)
    slots = config.model.slot_attention
    torch.manual_seed(seed)
    with closing(StoreCatalog(open_store(store), holdout=SCENES[scene].holdout)) as catalog:
        clip = ClipConfig(clip_length=config.stream.clip_length)
        images = gather(catalog, "train", clips=100_000, config=clip).images
        size = (images.shape[2], images.shape[3])
        decoder = DecoderProbe(config.probe.decoder, slot_size=slots.slot_size, image_size=size)
        parameters = [*model.parameters(), *decoder.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=config.optimizer.learning_rate, fused=True)
        ends_at, steps = time.monotonic() + 60 * minutes, 0
        while time.monotonic() < ends_at:
            for group in optimizer.param_groups:
                group["lr"] = config.optimizer.learning_rate * min(1.0, (steps + 1) / 50)
            rows = torch.randint(len(images), (config.training.batch_clips,)).numpy()
            frames = to_images(images[rows])
            output = model(frames)
            loss = _error(decoder, output.slots, frames)
            loss = loss + _error(decoder, output.predicted, frames[:, 2:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        evaluator = Evaluator.of(config, catalog, untrained, device=device)
        found = evaluator.evaluate(model, step=steps).evaluation
    out.write_bytes(msgspec.json.encode(found))


def _error(decoder: DecoderProbe, slots: Tensor, frames: Tensor) -> Tensor:
    drawn = decoder(slots.flatten(0, 1)).image
    return (drawn - frames.flatten(0, 1)).square().mean()


def main() -> None:
    options = _options()
    if options.inner:
        store, out = options.inner
        learn_to_draw(store, out, options.scenes[0], options.seeds[0], options.minutes)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    CONTRASTIVE.update({also: tuple(also.split(",")) for also in options.also})
    ways = ["SetCon", *options.ways, *options.also]
    tasks: list[Task] = []
    for scene in options.scenes:
        for seed in options.seeds:
            store = make_store(scene, options.folder, seed)
            tasks += [Task(way=way, scene=scene, seed=seed, store=store) for way in ways]

    def train(task: Task) -> Evaluation:
        return reconstruct(task, options) if task.way == RECONSTRUCTION else contrast(task, options)

    found: dict[tuple[str, str], list[Evaluation]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for number, (task, scores) in enumerate(zip(tasks, pool.map(train, tasks), strict=True)):
            found.setdefault((task.scene, task.way), []).append(scores)
            _progress(f"{number + 1} of {len(tasks)} have learned")
    for scene in options.scenes:
        _table(scene, ways, found)
    if options.json is not None:
        told = {f"{scene}, {way}": each for (scene, way), each in found.items()}
        options.json.write_bytes(msgspec.json.encode(told))


def _table(scene: str, ways: list[str], found: dict[tuple[str, str], list[Evaluation]]) -> None:
    titles = ("s_t MSE", "of mean", "FG-ARI", "p_t MSE", "of mean", "FG-ARI", "steps")
    print(f"\r{scene:28}" + "".join(f"{title:>26}" for title in titles))
    for way in ways:
        evaluations = found[scene, way]
        _row(way, [e.trained for e in evaluations], [e.step for e in evaluations])
        copied = [e.copied for e in evaluations if e.copied]
        print(f"{'  its last s_t copied':28}{'':78}" + "".join(f"{c:>26}" for c in _cells(copied)))
    ours = found[scene, "SetCon"]
    _row("untrained", [e.untrained for e in ours], None)
    simple = [e.without_model for e in ours if e.without_model]
    for name, masks in (
        ("blocks of the image", [each.blocks for each in simple]),
        ("k-means of colours", [each.colours for each in simple]),
        ("k-means in each frame", [each.frame_k_means for each in simple]),
        ("Ward in each frame", [each.frame_ward for each in simple]),
    ):
        print(f"{name:28}{'':52}{mean_and_each([m.fg_ari for m in masks if m], '.3f'):>26}")
    print(
        f"{'mean frame':28}{mean_and_each([4 * e.mean_frame_mse for e in ours], '.4f'):>26}",
        flush=True,
    )


def _row(name: str, scores: list[EncoderScores], steps: list[int] | None) -> None:
    cells = [*_cells([s.current for s in scores]), *_cells([s.predicted for s in scores])]
    if steps is not None:
        cells.append(mean_and_each([float(step) for step in steps], ".0f"))
    print(f"{name:28}" + "".join(f"{cell:>26}" for cell in cells))


def _cells(parts: list[ReconstructionScores]) -> list[str]:
    return [
        mean_and_each([4 * part.mse for part in parts], ".4f"),
        mean_and_each([part.mse_share or 0.0 for part in parts], ".3f"),
        mean_and_each([part.alphas.fg_ari for part in parts if part.alphas], ".3f"),
    ]


def mean_and_each(values: list[float], form: str) -> str:
    """The mean, and all of it is made of."""
    if len(values) < 2:
        return format(values[0], form) if values else "-"
    return f"{statistics.mean(values):{form}} ({' '.join(format(v, form) for v in values)})"


def _progress(text: str) -> None:
    print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The table of the paper.")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="*", choices=OTHERS, default=OTHERS)
    parser.add_argument("--also", nargs="+", default=[], metavar="KEY=VALUE,...")
    parser.add_argument("--starts", type=int, default=1, help="runs, of which one is scored")
    parser.add_argument("--minutes", type=float, default=10.0, help="of learning, for each run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("paper-runs"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--inner", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.starts < 1:
        parser.error(f"--starts is {options.starts}, it must be at least 1")
    return options


if __name__ == "__main__":
    main()
