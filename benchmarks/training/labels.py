"""How good the labels are that `things` learns from, and its pieces, on footage of other kinds.

    python benchmarks/training/labels.py [--kinds 128 64 5fps ...]

Twelve seconds of the recording of footage.py, in its kinds; nothing is trained. Of four clips of 24
frames (two at 5 frames a second):

    precision, recall   of the cells that motion alone labels as objects; a cell counts by the share
                        of its pixels that are an object's
    rest                precision of the cells that are labelled as background
    oracle              FG-ARI, ARI and mBO of objects put together where the foreground is perfect
"""

import argparse
from collections.abc import Iterator, Sequence
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from footage import FPS, KINDS, SIDE, Kind, recording
from jaxtyping import UInt8
from torch import Tensor

from ingest.frame import Frames
from setcon.measures.metrics import ari, fg_ari, mbo
from setcon.slots.foreground import foreground_targets
from setcon.supervoxels.objects import group, segments
from setcon.supervoxels.supervoxels import CELL, Supervoxels, neighbour_distance

SECONDS, CLIP, THRESHOLD, MOST = 12, 24, 0.4, 11
STARTS = (0, 24, 48, 96)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    there = [name for name in KINDS if name not in ("short", "cuts")]
    parser.add_argument("--kinds", nargs="+", choices=there, default=there)
    torch.set_num_threads(1)
    columns = ("precision", "recall", "rest", "FG-ARI", "ARI", "mBO")
    print(f"{'':10}" + "".join(f"{column:>10}" for column in columns))
    for name in parser.parse_args().kinds:
        figures = _figures(KINDS[name])
        print(f"{name:10}" + "".join(f"{figure:10.2f}" for figure in figures), flush=True)


def _figures(kind: Kind) -> list[float]:
    counts, scores = [], []
    for frames, masks in _clips(kind):
        pieces = Supervoxels.of(frames, distance=neighbour_distance(1 / kind.fps, num_frames=CLIP))
        targets = foreground_targets(pieces, torch.zeros(pieces.labels.shape), trust=0)
        share = F.avg_pool2d((masks > 0).float()[:, None], CELL, ceil_mode=True)[:, 0]
        thing, rest = (targets == 1).float(), (targets == 0).float()
        each = ((thing * share), thing, share, rest * (1 - share), rest)
        counts.append([float(values.sum()) for values in each])
        found = group(pieces, pieces.mean(share), threshold=THRESHOLD, most=MOST)
        drawn = segments(frames, pieces.labels, found)
        scores.append([float(score(masks, drawn).nanmean()) for score in (fg_ari, ari, mbo)])
    right, thing, share, right_rest, rest = map(sum, zip(*counts, strict=True))
    return [right / thing, right / share, right_rest / rest, *map(mean, zip(*scores, strict=True))]


def _clips(kind: Kind) -> Iterator[tuple[UInt8[Tensor, "t h w 3"], Tensor]]:
    blocks = list(kind.change(recording(1000, SECONDS * FPS)))
    whole = Frames.join(blocks)
    assert whole.masks is not None
    images, masks = whole.images[:: FPS // kind.fps], whole.masks[:: FPS // kind.fps]
    width, _, height = kind.size.partition("x")
    size = (int(height or width), int(width))
    above = (SIDE - SIDE * size[0] // size[1]) // 2
    rows = slice(above, SIDE - above)
    for start in [start for start in STARTS if start + CLIP <= len(images)]:
        clip = slice(start, start + CLIP)
        yield _scaled(images[clip, rows], masks[clip, rows], size)


def _scaled(
    images: UInt8[np.ndarray, "t _h _w 3"], masks: UInt8[np.ndarray, "t _h _w"], size: Sequence[int]
) -> tuple[UInt8[Tensor, "t h w 3"], Tensor]:
    floats = torch.from_numpy(images).movedim(-1, 1).float()
    smaller = F.interpolate(floats, tuple(size), mode="area").round().to(torch.uint8)
    labels = F.interpolate(torch.from_numpy(masks)[:, None].float(), tuple(size), mode="nearest")
    return smaller.movedim(1, -1), labels[:, 0].long()


if __name__ == "__main__":
    main()
