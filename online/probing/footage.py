"""Footage to look at a model with: short clips spread evenly over the training or held-out part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8

from ingest.errors import ReleasedError
from ingest.frame import UNKNOWN_LABEL, Frames
from online.clips.catalog import FrameSource
from online.clips.clip import ClipConfig, ClipSpec, Interval, cut
from online.clips.holdout import BLOCK_MINUTES, RecordingSummary
from online.errors import FootageError

Part = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """m clips of t frames each, in time order."""

    specs: tuple[ClipSpec, ...]
    images: UInt8[np.ndarray, "m t h w 3"]
    pts_ns: Int64[np.ndarray, "m t"]
    masks: UInt8[np.ndarray, "m t h w"] | None
    """Label maps: 0 is background, `UNKNOWN_LABEL` is not known, as in clips without masks; None
    where no clip has them, or they were not asked for."""

    def __len__(self) -> int:
        return len(self.specs)


def gather(
    source: FrameSource, part: Part, *, clips: int, config: ClipConfig, masks: bool = True
) -> Footage:
    """Fetch up to `clips` full clips, evenly spread over a part of all recordings.

    Raises FootageError: the part holds no run of frames long enough, or frames of several sizes.
    """
    recordings = source.recordings()
    check_sizes(recordings)
    found: dict[ClipSpec, Frames] = {}
    for name, window, anchor in _windows(recordings, part, clips=clips, config=config):
        try:
            frames = source.fetch(name, window.start, len(window), masks=masks)
        except ReleasedError:  # since the recordings were listed
            continue
        specs = cut(name, frames.gap, [Interval(0, len(window))], config)
        whole = [spec for spec in specs if spec.length == config.frames]
        if whole:
            full = min(whole, key=lambda spec: abs(window.start + spec.start - anchor))
            spec = ClipSpec(name, window.start + full.start, full.length)
            found.setdefault(spec, frames.part(full.start, full.start + full.length))
    if not found:
        raise FootageError(_too_short(recordings, part, config))
    return _stack(dict(_apart(sorted(found.items()), config)))


def _apart(
    found: Iterable[tuple[ClipSpec, Frames]], config: ClipConfig
) -> Iterator[tuple[ClipSpec, Frames]]:
    """Without those that share owned frames with the one before: gaps and ends move clips."""
    last: ClipSpec | None = None
    for spec, frames in found:
        alike = last is not None and last.recording == spec.recording
        if last is None or not alike or spec.start - last.start >= config.clip_length:
            yield spec, frames
            last = spec


def _windows(
    recordings: list[RecordingSummary], part: Part, *, clips: int, config: ClipConfig
) -> Iterator[tuple[str, Interval, int]]:
    """Evenly spaced places, each in a stretch twice a clip long, so that a gap leaves room.

    They are `clip_length` or more apart, as many frames as a clip owns: each counts once.
    """
    frames = config.frames
    places = [
        (summary.name, interval)
        for summary in recordings
        for interval in (summary.train if part == "train" else summary.held_out)
        if len(interval) >= frames
    ]
    ends = np.cumsum([len(interval) for _, interval in places])
    total = int(ends[-1]) if places else 0
    clips = min(clips, max(len(places[:1]), total // config.clip_length))
    for at in np.linspace(0, total, clips, endpoint=False).astype(int).tolist():
        index = int(np.searchsorted(ends, at, side="right"))
        name, interval = places[index]
        length = min(2 * frames, len(interval))
        anchor = interval.stop - (int(ends[index]) - at)
        start = min(anchor, interval.stop - length)
        yield name, Interval(start, start + length), anchor


def check_sizes(recordings: Sequence[RecordingSummary]) -> None:
    """Refuse recordings whose frames cannot be in one batch.

    Raises FootageError: naming one recording of each size.
    """
    sizes = {(r.height, r.width): r.name for r in recordings}
    if len(sizes) > 1:
        named = ", ".join(f"{name} {w}x{h}" for (h, w), name in sizes.items())
        raise FootageError(
            f"recordings have frames of several sizes ({named}); "
            "choose those of one size with --recordings GLOB"
        )


def _too_short(recordings: list[RecordingSummary], part: Part, config: ClipConfig) -> str:
    there = ", ".join(
        f"{r.name} {sum(map(len, r.train if part == 'train' else r.held_out))} frames"
        for r in recordings
    )
    wanted = "training" if part == "train" else "held-out"
    remedy = "record more, or lower evaluation.clip_length or stream.frame_stride"
    if part == "held_out" and not any(r.held_out for r in recordings):
        remedy = live_remedy(recordings) or "hold out more with --holdout"
    return (
        f"no run of {config.frames} {wanted} frames without a gap (there: {there or 'nothing'}); "
        f"{remedy}"
    )


def live_remedy(recordings: Sequence[RecordingSummary]) -> str | None:
    """What to do while nothing of a camera is held out yet; None if there is no camera."""
    if not any(recording.live for recording in recordings):
        return None
    return (
        f"of a camera every {BLOCK_MINUTES}th minute is held out: record at least {BLOCK_MINUTES}"
    )


def _masks(frames: Frames) -> UInt8[np.ndarray, "t h w"]:
    if frames.masks is not None:
        return frames.masks
    return np.full(frames.images.shape[:-1], UNKNOWN_LABEL, np.uint8)


def _stack(found: dict[ClipSpec, Frames]) -> Footage:
    frames = list(found.values())
    has_masks = any(f.masks is not None for f in frames)
    return Footage(
        specs=tuple(found),
        images=np.stack([f.images for f in frames]),
        pts_ns=np.stack([f.pts_ns for f in frames]),
        masks=np.stack([_masks(f) for f in frames]) if has_masks else None,
    )
