"""The preset `things` on the same scene in other sizes, shapes, rates and light.

    python benchmarks/training/footage.py [--kinds 128 64 5fps cuts ...] [--seeds 0] [--steps 120]
                                          [--set KEY=VALUE ...] [--folder DIR]

A minute of four objects that hands move on a quilt of the same colours, at 256x256 and 60 frames a
second, is changed and ingested in different ways. Of every kind the last fifth is held out.

    128                  128x128 at 30 frames a second, which the others are compared with
    64 96 160 256 wide   the same in other sizes; wide is 128x72, cut out of the middle
    5fps 10fps 60fps     at other rates
    short                15 seconds of it
    cuts                 every two seconds another of three recordings goes on
    zoom                 the camera goes to twice as near and back, every four seconds
    flicker              every frame is up to a tenth brighter or darker, by chance
    bare                 the quilt is one grey, with a camera's noise

FG-ARI, ARI and mBO are of the segments on held-out frames, next to pieces of each frame by Ward's
method, which are told how many objects there are. A run that is there is not made again.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from things import MEASURES, call, mean_and_each, scores

from ingest.frame import Frames
from ingest.scenes import scene_blocks
from ingest.scenes.tabletop import QuiltConfig
from ingest.video.mp4_writer import write_mp4

SIDE, FPS, SECONDS = 256, 60, 60
QUICK = (
    *("training.threads=1", "training.batch_clips=2"),
    *("probe.steps=1", "evaluation.train_clips=1", "evaluation.held_out_clips=4"),
)
"""Half of the preset's clips in a batch; no probe and no scores of training footage are looked
at here."""

Change = Callable[[Iterator[Frames]], Iterator[Frames]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of footage: what is done to the recording, and how it is ingested."""

    change: Change = lambda blocks: blocks
    size: str = "128"
    fps: int = 30
    seconds: int = SECONDS


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'':20}" + "".join(f"{measure:>24}" for measure in MEASURES))
    for name in options.kinds:
        runs = [_learn(name, seed, options) for seed in options.seeds]
        for row in ("trained", "frame ward"):
            cells = [mean_and_each([run[row][measure] for run in runs]) for measure in MEASURES]
            print(f"{name + ' ' + row:20}" + "".join(f"{c:>24}" for c in cells), flush=True)


def _learn(name: str, seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    kind = KINDS[name]
    store, video = options.folder / name, options.folder / f"{name}.mp4"
    if not store.exists():
        _write(kind, video)
        call("ingest", str(video), str(store), "--size", kind.size, "--fps", str(kind.fps))
        video.unlink()
    run = options.folder / "-".join([f"run-{name}-{seed}", str(options.steps), *options.set])
    settings = (f"training.seed={seed}", f"training.steps={options.steps}", *QUICK, *options.set)
    return scores(store, run, settings)


def _write(kind: Kind, video: Path) -> None:
    """The changed recording, with its masks."""
    frames = kind.seconds * FPS
    with write_mp4(
        video, height=SIDE, width=SIDE, length=frames, fps=FPS, ticks_per_second=FPS, has_masks=True
    ) as write:
        for block in kind.change(recording(1000, frames)):
            write(block)


def recording(seed: int, frames: int) -> Iterator[Frames]:
    """The scene before it is changed; other seeds are other scenes."""
    scene = QuiltConfig(size=SIDE, fps=FPS, speed=0.005, num_frames=frames, seed=seed)
    return scene_blocks(scene)


def _cut(blocks: Iterator[Frames]) -> Iterator[Frames]:
    """Every two seconds another of three recordings goes on."""
    frames = SECONDS * FPS
    sources = [blocks, *(recording(seed, frames) for seed in (1001, 1002))]
    for index, views in enumerate(zip(*map(_single, sources), strict=True)):
        yield views[index // (2 * FPS) % len(views)]


def _zoomed(blocks: Iterator[Frames]) -> Iterator[Frames]:
    for index, frame in enumerate(_single(blocks)):
        zoom = 1.5 - 0.5 * np.cos(2 * np.pi * index / (4 * FPS))
        place = SIDE / 2 + (np.arange(SIDE) + 0.5 - SIDE / 2) / zoom
        assert frame.masks is not None
        nearest = place.astype(int)
        masks = frame.masks[:, nearest][:, :, nearest]
        yield replace(frame, images=_between(frame.images, place - 0.5), masks=masks)


def _between(
    images: UInt8[np.ndarray, "n h w 3"], place: np.ndarray
) -> UInt8[np.ndarray, "n r c 3"]:
    """Pixels at these rows and columns, linear between their neighbours."""
    low = np.clip(place.astype(int), 0, SIDE - 2)
    share = np.clip(place - low, 0, 1)
    values = images.astype(np.float32)
    rows = values[:, low] + share[:, None, None] * (values[:, low + 1] - values[:, low])
    both = rows[:, :, low] + share[:, None] * (rows[:, :, low + 1] - rows[:, :, low])
    return np.rint(both).astype(np.uint8)


def _flickering(blocks: Iterator[Frames]) -> Iterator[Frames]:
    rng = np.random.default_rng(0)
    for frame in _single(blocks):
        yield replace(frame, images=_bytes(frame.images * rng.uniform(0.9, 1.1)))


def _bare(blocks: Iterator[Frames]) -> Iterator[Frames]:
    rng = np.random.default_rng(0)
    for block in blocks:
        assert block.masks is not None
        grey = np.where(block.masks[..., None] > 0, block.images, 120)
        yield replace(block, images=_bytes(grey + rng.normal(0, 2, grey.shape)))


def _bytes(values: np.ndarray) -> UInt8[np.ndarray, "n h w 3"]:
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def _single(blocks: Iterator[Frames]) -> Iterator[Frames]:
    for block in blocks:
        for i in range(len(block)):
            yield block.part(i, i + 1)


KINDS: dict[str, Kind] = {
    "128": Kind(),
    "64": Kind(size="64"),
    "96": Kind(size="96"),
    "160": Kind(size="160"),
    "256": Kind(size="256"),
    "wide": Kind(size="128x72"),
    "5fps": Kind(fps=5),
    "10fps": Kind(fps=10),
    "60fps": Kind(fps=60),
    "short": Kind(seconds=15),
    "cuts": Kind(change=_cut),
    "zoom": Kind(change=_zoomed),
    "flicker": Kind(change=_flickering),
    "bare": Kind(change=_bare),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-footage"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
