"""Textured squares that move over a textured background, and where each of them is."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.records import Counters, RecordSettings, Source

BLUE, RED, YELLOW = (40, 60, 200), (210, 40, 40), (220, 200, 40)


@dataclass(frozen=True, kw_only=True)
class Square:
    """A square of `side` pixels; (y, x) of its corner in the first frame, and per frame."""

    side: int
    start: tuple[int, int]
    velocity: tuple[int, int] = (0, 0)
    colour: tuple[int, int, int] = BLUE
    first: int = 0
    """The frame from which on it is there."""
    last: int = 10_000
    """The first frame in which it is gone."""


def texture(height: int, width: int, *, seed: int, grain: int = 6) -> Float[Tensor, "3 h w"]:
    """Smooth noise, the same in all three channels, about -1..1; its grains are `grain` pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, height // grain + 3, width // grain + 3, generator=generator)
    fine = F.interpolate(coarse, scale_factor=grain, mode="bicubic")[0, :, :height, :width]
    return fine.clamp(-2, 2).expand(3, -1, -1) / 2


def scene(
    squares: Sequence[Square],
    *,
    num_frames: int,
    size: tuple[int, int] = (48, 64),
    pan: tuple[int, int] = (0, 0),
    seed: int = 0,
) -> tuple[UInt8[Tensor, "t h w 3"], Int64[Tensor, "t h w"]]:
    """The frames, and in each of them 1 + the index of the square at each pixel, 0 without one.

    Later squares cover earlier ones; the background is grey and moves by `pan` per frame.
    """
    height, width = size
    room = num_frames * max(map(abs, pan)) if num_frames else 0
    wide = 128 + 50 * texture(height + 2 * room, width + 2 * room, seed=seed)
    frames, labels = [], torch.zeros(num_frames, height, width, dtype=torch.int64)
    for t in range(num_frames):
        top, left = room - t * pan[0], room - t * pan[1]
        frame = wide[:, top : top + height, left : left + width].clone()
        for number, square in enumerate(squares, start=1):
            if not square.first <= t < square.last:
                continue
            y, x = (s + t * v for s, v in zip(square.start, square.velocity, strict=True))
            rows = slice(max(0, y), max(0, y + square.side))
            columns = slice(max(0, x), max(0, x + square.side))
            skin = 30 * texture(square.side, square.side, seed=100 + number, grain=4)
            skin += torch.tensor(square.colour)[:, None, None]
            inside = frame[:, rows, columns]
            cut = skin[:, rows.start - y :, columns.start - x :]
            inside[:] = cut[:, : inside.shape[1], : inside.shape[2]]
            labels[t, rows, columns] = number
        frames.append(frame)
    images = torch.stack(frames).clamp(0, 255).round().to(torch.uint8)
    return images.movedim(1, -1).contiguous(), labels


def by_cell(mask: Bool[Tensor, "t h w"], side: int = 4) -> Float[Tensor, "t r c"]:
    """Share of each cell; the last row and column count again where a cell lacks some."""
    height, width = mask.shape[1:]
    whole = F.pad(mask.float(), (0, -width % side, 0, -height % side), mode="replicate")
    return F.avg_pool2d(whole, side)


def stored(
    images: UInt8[Tensor, "n h w 3"],
    masks: Int64[Tensor, "n h w"],
    path: Path,
    *,
    breaks: Collection[int] = (0,),
) -> Path:
    """A store whose recording, `squares`, has these frames, ten a second."""
    n, height, width, _ = images.shape
    frames = Frames(
        images=images.numpy(),
        pts_ns=(np.arange(n) * 1e8).astype(np.int64),
        gap=np.isin(np.arange(n), list(breaks)),
        masks=masks.numpy().astype(np.uint8),
    )
    with open_store(path, create_format="zarr").writer(
        "squares",
        source=Source(path="squares", digest="squares"),
        settings=RecordSettings(size=(width, height)),
        height=height,
        width=width,
        has_masks=True,
    ) as writer:
        writer.finish(frames, Counters(decoded=n, stored=n, gaps=len(breaks)))
    return path
