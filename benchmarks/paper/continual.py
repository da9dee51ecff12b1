"""What a single pass over a stream keeps: ways of replay and of stepping, against i.i.d. training.

    python benchmarks/paper/continual.py [--stream switch] [--videos VIDEO...] [--seeds 0 1 2]
                                         [--ways …] [--frames 3000] [--samples-per-insert 25]
                                         [--set KEY=VALUE]... [--jobs 2] [--folder DIR]
                                         [--json FILE]

A stream is a store of segments, learned from in order, once, with `setcon train`; then `setcon
continual` probes the weights of the end of each segment on each of them. Every way makes as many
updates from as many samples; "iid" sees the same footage shuffled, with all of it to replay, and is
what `reached` compares with. Buffers are shares of the bytes of the footage learned from; where
there is none for the recent past, some of the newest clips take their part of that share.

switch    bouncing balls, then textured sprites, then a grid world
drift     one recording of balls in three parts, in which hues turn by half the circle and the light
          fades to a half, little by little
real      clips given with --videos, one after another
rooms     five rooms in 3D in which things fall, by the preset `things` at 128x128 (extra `tumble`)

A run that is there is not made again, so an interrupted benchmark goes on where it was.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from math import cos, pi, sin, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from one_thread import CLI, call, train_once

from ingest.frame import Frames
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.scenes import Scene, scene_frames
from ingest.scenes.balls import BallsConfig
from ingest.scenes.gridworld import GridworldConfig
from ingest.scenes.sprites import SpritesConfig
from ingest.scenes.tumble import TumbleConfig
from ingest.scenes.video import render_scene
from ingest.store.records import RecordSettings
from ingest.video.mp4_writer import write_mp4

HOLDOUT = 0.2
IID = "iid"


@dataclass(frozen=True)
class Scale:
    """The model of a stream, and what it learns from at once."""

    preset: str = "demo"
    size: int = 32
    clip_length: int = 10
    batch: int = 12
    newest: int = 12
    """Clips that are kept of the recent past where nothing else is."""
    train_clips: int = 150
    """For the probe."""

    @property
    def clip_bytes(self) -> int:
        """Of a clip in memory, with the two frames before it."""
        return (self.clip_length + 2) * self.size**2 * 3


SMALL, OBJECTS = Scale(), Scale(preset="things", size=128, batch=4, newest=1, train_clips=1)
"""Clips of objects are half as long as the preset's: a buffer holds twice as many of them."""


def scale_of(stream: str) -> Scale:
    """`rooms` needs frames in which objects can be found."""
    return OBJECTS if stream == "rooms" else SMALL


@dataclass(frozen=True)
class Way:
    """How a run replays the past, and steps."""

    fifo: float = 0.0
    """Share of the footage in the short-term buffer; -1 is the few newest clips."""
    long_term: float = 0.0
    kind: str = "reservoir"
    settings: tuple[str, ...] = ()


def _ways(share: float) -> dict[str, Way]:
    name = f"{share:.0%}"
    half = Way(fifo=share / 2, long_term=share / 2, kind="minred")
    return {
        f"FIFO {name}": Way(fifo=share),
        f"reservoir {name}": Way(fifo=-1, long_term=share),
        f"MinRed {name}": Way(fifo=-1, long_term=share, kind="minred"),
        # of less than two batches, halves would hold less than one
        **({f"FIFO + MinRed {name}": half} if share > 0.04 else {}),
    }


ORTHOGONAL = ("optimizer.orthogonal=0.9",)
RMSPROP = ("optimizer.kind=rmsprop", "optimizer.learning_rate=5e-4")
WAYS = {
    IID: Way(long_term=1.0, settings=("stream.order=shuffled",)),
    "no replay": Way(fifo=-1),
    **_ways(0.08),
    **_ways(0.02),
    "no replay, orthogonal": Way(fifo=-1, settings=ORTHOGONAL),
    "no replay, RMSProp": Way(fifo=-1, settings=RMSPROP),
    "reservoir 8%, orthogonal": Way(fifo=-1, long_term=0.08, settings=ORTHOGONAL),
}
OF_SHORT_FOOTAGE = _ways(0.5)
"""For --ways alone: of clips so short that 8 % of them are less than a batch."""
ALL_WAYS = WAYS | OF_SHORT_FOOTAGE


def make_stream(name: str, folder: Path, seed: int, options: argparse.Namespace) -> Path:
    """A store whose recordings sort in the order of the stream."""
    store = folder / f"{name}-{options.frames}-{seed}"
    if (store / "done").exists():
        return store
    frames = options.frames
    if name == "drift":
        sources = render_drift(folder, frames, seed)
    elif name == "switch":
        scenes = {
            "0-balls": BallsConfig(num_frames=frames, size=64, radius=0.14, speed=0.1, seed=seed),
            "1-sprites": SpritesConfig(num_frames=frames, size=64, speed=0.05, seed=seed),
            "2-grid": GridworldConfig(num_frames=frames, seed=seed),
        }
        sources = [str(folder / f"{scene}-{seed}" / f"{scene}.mp4") for scene in scenes]
        _render(scenes.values(), sources)
    elif name == "rooms":
        rooms = [
            TumbleConfig(
                num_frames=frames, seed=10 * seed + i, worlds=1, min_objects=3, max_objects=6
            )
            for i in range(5)
        ]
        sources = [str(folder / f"rooms-{seed}" / f"room-{i}.mp4") for i in range(5)]
        _render(rooms, sources)
    else:
        sources = [str(video) for video in options.videos]
    for outcome in ingest_sources(sources, store, RecordSettings(size=scale_of(name).size)):
        if outcome.error is not None:
            raise SystemExit(str(outcome.error))
    (store / "done").touch()
    return store


def _render(scenes: Iterable[Scene], sources: Sequence[str]) -> None:
    for source, config in zip(sources, scenes, strict=True):
        Path(source).parent.mkdir(parents=True, exist_ok=True)
        if not Path(source).exists():
            render_scene(config, Path(source))


def render_drift(folder: Path, frames: int, seed: int) -> list[str]:
    """Three parts of one recording, whose colours and light change with every frame."""
    config = BallsConfig(num_frames=3 * frames, size=64, radius=0.14, speed=0.1, seed=seed)
    frame_by_frame = scene_frames(config)
    sources: list[str] = []
    for part, name in enumerate(("0-early", "1-middle", "2-late")):
        path = folder / f"drift-{seed}" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_mp4(
            path,
            height=config.size,
            width=config.size,
            length=frames,
            fps=config.fps,
            ticks_per_second=config.fps,
            has_masks=True,
        ) as write:
            for index, frame in enumerate(islice(frame_by_frame, frames)):
                share = (part * frames + index) / config.num_frames
                write(Frames.stack([replace(frame, image=_drifted(frame.image, share))]))
        sources.append(str(path))
    return sources


def _drifted(image: UInt8[np.ndarray, "h w 3"], share: float) -> UInt8[np.ndarray, "h w 3"]:
    """Colours turned about the axis of greys, by Rodrigues' formula, and dimmed."""
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / sqrt(3)
    angle = pi * share
    turn = np.eye(3) + sin(angle) * across + (1 - cos(angle)) * across @ across
    return ((1 - 0.5 * share) * image @ turn.T).round().clip(0, 255).astype(np.uint8)


def settings(way: Way, store: Path, seed: int, options: argparse.Namespace) -> list[str]:
    """Settings for `setcon train`."""
    opened = open_store(store)
    frames = sum(opened.commit(name).length for name in opened.recordings()) * (1 - HOLDOUT)
    scale = scale_of(options.stream)
    footage = frames / scale.clip_length * scale.clip_bytes
    newest = scale.newest * scale.clip_bytes

    def share(of: float) -> int:
        return newest if of < 0 else round(of * footage)

    long_term = max(0, share(way.long_term) - newest * (way.fifo < 0 < way.long_term))
    return [
        *("stream.max_epochs=1", f"training.seed={seed}"),
        f"training.batch_clips={scale.batch}",
        f"stream.clip_length={scale.clip_length}",
        *("evaluation.every_steps=1000000000", f"evaluation.train_clips={scale.train_clips}"),
        f"replay.samples_per_insert={options.samples_per_insert}",
        f"replay.fifo_bytes={share(way.fifo)}",
        f"replay.long_term_bytes={long_term}",
        f"replay.long_term={way.kind}",
        *way.settings,
        *(() if way is WAYS[IID] else ("training.keep_segments=true", "stream.order=stream")),
        *options.set,
    ]


def learn(name: str, store: Path, run: Path, seed: int, options: argparse.Namespace) -> None:
    """One run, and what it has kept."""
    told = settings(ALL_WAYS[name], store, seed, options)
    limits = ("--steps", "100000000", "--holdout", str(HOLDOUT))
    train_once(store, run, told, *limits, preset=scale_of(options.stream).preset)


def evaluate(name: str, store: Path, run: Path) -> dict[str, Any]:
    """The matrix of a run against that of i.i.d. training, which must be there."""
    if not (run / "continual.json").exists():
        against = ["--against", str(run.parent / IID)]
        call([*CLI, "continual", str(run), str(store), *against])
    return {"way": name, **json.loads((run / "continual.json").read_text())}


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    ways = [way for way in options.ways if way != IID]
    for seed in options.seeds:
        store = make_stream(options.stream, options.folder, seed, options)
        made_with = f"{options.frames}-{options.samples_per_insert:g}-{'-'.join(options.set)}"
        folder = options.folder / f"runs-{options.stream}-{made_with}-{seed}"
        runs = {way: folder / _slug(way) for way in [IID, *ways]}
        with ThreadPoolExecutor(options.jobs) as pool:
            for number, _ in enumerate(
                pool.map(lambda w: learn(w, store, runs[w], seed, options), runs)  # noqa: B023
            ):
                _progress(f"seed {seed}: {number + 1} of {len(runs)} have learned")
            for number, result in enumerate(
                pool.map(lambda w: evaluate(w, store, runs[w]), ways)  # noqa: B023
            ):
                found.append({"seed": seed, **result})
                _progress(f"seed {seed}: {number + 1} of {len(ways)} probed")
        _table(found, ways)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


COLUMNS = {
    "final": "at the end",
    "reached": "of i.i.d. gain",
    "forgetting": "forgotten",
    "backward_transfer": "backward",
    "forward_transfer": "forward",
    "lowest": "lowest",
}


def _table(found: list[dict[str, Any]], ways: list[str]) -> None:
    """Means over seeds, with their standard errors."""
    print(f"\r{'':28}" + "".join(f"{title:>18}" for title in COLUMNS.values()))
    for way in ways:
        rows = [row for row in found if row["way"] == way]
        cells = [_mean([row[column] for row in rows]) for column in COLUMNS]
        print(f"{way:28}" + "".join(f"{cell:>18}" for cell in cells))
    sys.stdout.flush()


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = statistics.mean(known)
    if len(known) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {statistics.stdev(known) / len(known) ** 0.5:.3f}"


def _slug(way: str) -> str:
    return way.replace(" ", "-").replace(",", "").replace("%", "").replace("+", "and")


def _progress(text: str) -> None:
    print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a single pass over a stream keeps.")
    parser.add_argument("--stream", choices=["switch", "drift", "real", "rooms"], default="switch")
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="for --stream real")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--ways", nargs="+", choices=list(ALL_WAYS)[1:], default=list(WAYS)[1:], metavar="WAY"
    )
    parser.add_argument("--frames", type=int, default=3000, help="of each segment")
    parser.add_argument("--samples-per-insert", type=float, default=25.0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("continual-runs"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
