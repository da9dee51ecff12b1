"""A video of what a model sees in footage that it never learned from.

frame │ the frame under its segments │ segments │ reconstruction
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from ingest.frame import Frames
from ingest.store.output import writing
from ingest.video.mp4_writer import video_fault, write_mp4
from online.analysis.opened import opened_run
from online.analysis.readout import FRAMES_AT_ONCE, Read, Readout
from online.clips.clip import Interval
from online.clips.holdout import RecordingSummary
from online.errors import FootageError, RunError
from online.probing.footage import live_remedy
from online.reports.figures import GAP, LINE, MARGIN, MUTED, Sheet, Size
from online.reports.tiles import panel_colours, slot_colours
from online.runs.log import latest_panels

log = logging.getLogger(__name__)

Part = Literal["held_out", "all"]

SHINE = 0.55
"""How much of the colour of its slot a frame takes on."""
LONGEST_STEP_NS = 500_000_000
"""Longest time that a frame is shown at a gap: missing footage is not waited for."""
SURVEYED = 8
"""Pieces of footage by which slots get their colours."""
TILE = 256
"""Side of a picture at least: small frames are enlarged by a whole factor."""
_HEADINGS = ("frame", "segments over it", "segments", "reconstruction")
_TICKS_PER_SECOND = 90_000
_SHORTEST_STEP_NS = 4 * 1_000_000_000 // _TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Rendered:
    """What `render_run` wrote."""

    path: Path
    frames: int
    seconds: float
    """Length of the video."""
    is_all: bool
    """Whether there were no frames left."""
    step: int


def render_run(
    run: str | Path,
    store: str | Path,
    path: str | Path,
    *,
    recordings: str = "*",
    part: Part = "held_out",
    seconds: float | None = None,
    overwrite: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Rendered:
    """Draw the held-out frames of a store, or all, as a run's newest checkpoint sees them.

    Recordings come one after another, each frame for as long as it was in its recording;
    `seconds` ends the video. Slots have the colours that they have in the run's report, where
    there is one with pictures. The probe is fitted on the training part of the store, as by `setcon
    eval`. The file appears when it is whole.

    Raises RunError: a file is in the way and `overwrite` is not set, or as for `opened_run`;
    FootageError: nothing is held out. IngestError, OnlineError: otherwise, in one line.
    """
    run, path = Path(run), Path(path)
    report = progress or (lambda what, share: None)
    if fault := video_fault(path, what="a video", overwrite=overwrite):
        raise RunError(fault)
    with opened_run(run, store, recordings=recordings) as opened, writing(path):
        trained = opened.trained
        shown, unreadable = latest_panels(run)
        for damage in unreadable:
            log.warning("%s: %s", run, damage)
        summaries = opened.catalog.recordings()
        if not any(_places(summaries, part)):
            ways = ", or ".join(filter(None, (live_remedy(summaries), "use --part all")))
            raise FootageError(f"{store}: no footage is held out; {ways}")
        probe = opened.fit_probe(report)
        # again, as that took its time: a capture may have released its oldest frames
        summaries = opened.catalog.recordings()
        places = list(_places(summaries, part))
        readout = Readout(trained.model, probe, opened.catalog, device=opened.evaluator.device)
        colours = _survey(readout, places) if shown is None else panel_colours(shown)
        sheet = _Strip(summaries[0].height, summaries[0].width)
        total = sum(len(interval) for _, interval in places)
        written, end_ns = 0, 0
        with write_mp4(
            path,
            height=sheet.height,
            width=sheet.width,
            length=total,
            fps=Fraction(30),
            ticks_per_second=_TICKS_PER_SECOND,
            has_masks=False,
            playable=True,
        ) as write:
            for name, read, pts_ns in _timed(readout, places, seconds):
                images = [sheet.draw(read, row, name, colours) for row in range(len(pts_ns))]
                write(Frames(np.stack(images), pts_ns, read.frames.gap[: len(pts_ns)]))
                written += len(images)
                end_ns = int(pts_ns[-1])
                done = pts_ns[-1] / 1e9 / seconds if seconds else 0.0
                report(f"rendering {name}", max(done, written / total))
    length = end_ns / 1e9 * written / max(1, written - 1)  # the last frame is shown for a while too
    return Rendered(path, written, length, written == total, trained.checkpoint.step)


def _places(summaries: Sequence[RecordingSummary], part: Part) -> Iterator[tuple[str, Interval]]:
    for summary in summaries:
        for interval in summary.held_out if part == "held_out" else [summary.kept]:
            if len(interval):
                yield summary.name, interval


def _survey(readout: Readout, places: Sequence[tuple[str, Interval]]) -> UInt8[np.ndarray, "k 3"]:
    """Colours of the slots, by what each covers in the middle of some of the places."""
    picked = np.linspace(0, len(places) - 1, min(SURVEYED, len(places))).round().astype(int)
    alphas = []
    for name, interval in (places[index] for index in picked.tolist()):
        middle = (interval.start + interval.stop) // 2
        some = Interval(middle, min(middle + FRAMES_AT_ONCE, interval.stop))
        alphas += [read.alphas for read in readout.read(name, some) if read.alphas is not None]
    labels = np.concatenate([each.argmax(axis=1) for each in alphas])
    return slot_colours(labels, alphas[0].shape[1])


def _timed(
    readout: Readout, places: Sequence[tuple[str, Interval]], seconds: float | None
) -> Iterator[tuple[str, Read, np.ndarray]]:
    """Blocks of frames and their times in the video, up to `seconds`."""
    at_ns = -1
    for name, interval in places:
        last_ns = 0
        for read in readout.read(name, interval):
            source_ns = read.frames.pts_ns
            before = source_ns[:1] - 33_333_333 if not last_ns else np.array([last_ns])
            steps = np.diff(np.concatenate([before, source_ns])).clip(_SHORTEST_STEP_NS)
            steps = np.where(read.frames.gap, steps.clip(max=LONGEST_STEP_NS), steps)
            if at_ns < 0:
                at_ns, steps[0] = 0, 0
            times_ns = at_ns + np.cumsum(steps)
            at_ns, last_ns = int(times_ns[-1]), int(source_ns[-1])
            if seconds is not None:
                times_ns = times_ns[times_ns < seconds * 1e9]
            if not len(times_ns):
                return
            yield name, read, times_ns


class _Strip:
    """Draws one frame of the video."""

    def __init__(self, height: int, width: int) -> None:
        factor = max(1, TILE // max(height, width))
        self._tile = Size(factor * width, factor * height)
        self._columns = [MARGIN + i * (self._tile.width + GAP) for i in range(len(_HEADINGS))]
        right = self._columns[-1] + self._tile.width + MARGIN
        bottom = MARGIN + 2 * LINE + self._tile.height + MARGIN
        self.width, self.height = right + right % 2, bottom + bottom % 2

    def draw(
        self, read: Read, row: int, name: str, colours: UInt8[np.ndarray, "k 3"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """What was read from one frame of a block."""
        assert read.alphas is not None
        assert read.reconstruction is not None
        frame = read.frames.images[row]
        segments = _segments(read, row, colours)
        mixed = ((1 - SHINE) * frame + SHINE * segments).round().astype(np.uint8)
        sheet = Sheet(self.width, self.height)
        pictures = (frame, mixed, segments, read.reconstruction[row])
        for left, heading, picture in zip(self._columns, _HEADINGS, pictures, strict=True):
            sheet.text(left, MARGIN, heading, width=self._tile.width, colour=MUTED)
            sheet.picture(left, MARGIN + LINE, picture, self._tile)
        seconds = read.frames.pts_ns[row] / 1e9
        sheet.text(MARGIN, MARGIN + LINE + self._tile.height + GAP, f"{name} {seconds:.1f} s")
        return np.asarray(sheet.image)


def _segments(
    read: Read, row: int, colours: UInt8[np.ndarray, "k 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The segments of a frame, each in the colour of its slot, or of its object where one keeps its
    number."""
    if read.segments is None or read.objects is None:
        assert read.alphas is not None
        return colours[read.alphas[row].argmax(axis=0)]
    numbers = read.objects[row]
    cycled = np.where(numbers > 0, 1 + (numbers - 1) % (len(colours) - 1), 0)
    return colours[cycled][read.segments[row]]
