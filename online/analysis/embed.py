"""The slots of every frame in one HDF5 file, for programs that build on them.

/                attributes: run, step, settings (TOML), store
/RECORDING/      slots    (n, k, d)     float32
                 attention (n, k, gh, gw) uint8, shares of 255 on the encoder's grid, from slots
                                        with learned starts; the others have segments
                 alphas   (n, k, h, w)  uint8, shares of 255, if asked for
                 objects  (n, k)        int32, the number of each slot's object, which it keeps
                                        through the recording; 0 the background, -1 an empty slot *
                 segments (n, h, w)     uint8, the slot of each pixel *
                 centres  (n, k, 2)     float32, (y, x) in pixels, NaN for an empty slot *
                 spreads  (n, k, 2)     float32, standard deviations of the same *
                 velocities (n, k, 2)   float32, pixels per second, NaN where not seen twice *
                 colours  (n, k, 3)     float32, mean red, green and blue in 0..255, NaN for an
                                        empty slot, from slots that measure colours
                 pts_ns   (n)           int64, nanoseconds
                 gap      (n)           bool, where a frame does not continue the one before
                 held_out (n)           bool, what a run on this store does not learn from
                 attribute first_frame: frames before it were released, and are not among the n;
                 attribute meaning of each dataset: the same in words, with units

* from slots that start at objects only
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ingest.disk.durable import written_file
from ingest.disk.hdf5 import NewFile
from ingest.store.output import output_fault, writing
from online.analysis.opened import opened_run
from online.analysis.readout import FRAMES_AT_ONCE, Read, Readout
from online.analysis.velocities import velocities
from online.clips.holdout import RecordingSummary
from online.config import dump_config
from online.errors import RunError
from setcon.config import GEOMETRY
from setcon.supervoxels.supervoxels import CELL

_LARGE = ("alphas", "attention", "segments")
_MEANING = {
    "slots": "each slot's numbers",
    "attention": "shares of 255 of each cell of the encoder's grid",
    "alphas": "shares of 255 of each pixel, as the probe draws them",
    "objects": "number of each slot's object; 0 is the background, -1 a slot without an object",
    "segments": "slot of each pixel",
    "centres": "(y, x) in pixels; NaN without an object",
    "spreads": "standard deviations of (y, x) in pixels; NaN without an object",
    "velocities": "(y, x) in pixels per second; NaN where the object was not seen twice",
    "colours": "mean red, green and blue in 0..255; NaN without an object",
    "pts_ns": "time since the start, in nanoseconds",
    "gap": "the frame does not continue the one before",
    "held_out": "a run on this store does not learn from the frame",
}
"""Attribute `meaning` of each dataset."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What `embed_run` wrote."""

    path: Path
    recordings: int
    frames: int
    step: int


def embed_run(
    run: str | Path,
    store: str | Path,
    path: str | Path,
    *,
    recordings: str = "*",
    alphas: bool = True,
    overwrite: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Embedded:
    """Write what a run's newest checkpoint makes of all frames of a store.

    The probe that `alphas` come from is fitted on the training part of the store, as by `setcon
    eval`. The file appears when it is whole.

    Raises RunError: the file exists and `overwrite` is not set, it has no folder, or as for
    `opened_run`. IngestError, OnlineError: otherwise, in one line.
    """
    path = Path(path)
    report = progress or (lambda what, share: None)
    if fault := output_fault(
        path, what="an embedding", endings=(".h5", ".hdf5"), overwrite=overwrite
    ):
        raise RunError(fault)
    with opened_run(run, store, recordings=recordings) as opened, _written(path) as new:
        trained = opened.trained
        probe = opened.fit_probe(report) if alphas else None
        # after the probe, which takes its time: a capture releases its oldest frames
        summaries = opened.catalog.recordings()
        readout = Readout(trained.model, probe, opened.catalog, device=opened.evaluator.device)
        with new.filling() as file:
            file.attrs.update(
                run=str(run),
                step=trained.checkpoint.step,
                settings=dump_config(trained.config),
                store=str(store),
            )
        has_colours = trained.config.model.slot_attention.colour_moments > 0
        for summary in summaries:
            _embed(new, readout, summary, report, has_colours=has_colours)
    frames = sum(len(summary.kept) for summary in summaries)
    return Embedded(path, len(summaries), frames, trained.checkpoint.step)


@contextmanager
def _written(path: Path) -> Iterator[NewFile]:
    """A file that gets its name when it is whole and on disk."""
    with writing(path), written_file(path) as partial, NewFile(partial) as new:
        yield new


def _embed(
    new: NewFile,
    readout: Readout,
    summary: RecordingSummary,
    report: Callable[[str, float], None],
    *,
    has_colours: bool,
) -> None:
    first, length = summary.released, len(summary.kept)
    held_out = np.zeros(length, np.bool_)
    for interval in summary.held_out:
        held_out[interval.start - first : interval.stop - first] = True
    with new.filling() as file:
        group = file.create_group(summary.name)
        group.attrs["first_frame"] = first
        group["held_out"] = held_out
    pts_ns, gap = np.zeros(length, np.int64), np.zeros(length, np.bool_)
    columns: dict[str, h5py.Dataset] = {}
    for read in readout.read(summary.name, summary.kept):
        here = slice(read.start - first, read.start - first + len(read.frames))
        pts_ns[here], gap[here] = read.frames.pts_ns, read.frames.gap
        with new.filling():
            for name, values in _columns(read, has_colours=has_colours).items():
                if name not in columns:
                    columns[name] = group.create_dataset(
                        name,
                        shape=(length, *values.shape[1:]),
                        dtype=values.dtype,
                        chunks=(min(FRAMES_AT_ONCE, length), *values.shape[1:]),
                        compression="gzip" if name in _LARGE else None,
                        compression_opts=1 if name in _LARGE else None,
                    )
                columns[name][here] = values
        report(f"embedding {summary.name}", here.stop / length)
    with new.filling():
        group["pts_ns"], group["gap"] = pts_ns, gap
        if "centres" in columns:
            centres, objects = columns["centres"][:], columns["objects"][:]
            group["velocities"] = velocities(centres, objects, pts_ns, gap)
        for name, values in group.items():
            values.attrs["meaning"] = _MEANING[name]
        columns.clear()  # a dataset that is closed writes what is left of it


def _columns(read: Read, *, has_colours: bool) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {"slots": read.slots.astype(np.float32)}
    if read.segments is not None and read.objects is not None:
        columns["objects"] = read.objects.astype(np.int32)
        columns["segments"] = read.segments.astype(np.uint8)
        columns["centres"] = _in_pixels(read, slice(0, 2))
        columns["spreads"] = _in_pixels(read, slice(2, GEOMETRY))
        if has_colours:  # the first of the moments
            mean = (read.slots[..., GEOMETRY : GEOMETRY + 3] + 1) * 127.5
            columns["colours"] = _of_objects(read, mean)
    if read.attention is not None:
        columns["attention"] = (read.attention * 255).round().astype(np.uint8)
    if read.alphas is not None:
        columns["alphas"] = (read.alphas * 255).round().astype(np.uint8)
    return columns


def _in_pixels(read: Read, part: slice) -> np.ndarray:
    """Places or lengths that slots begin with, in pixels; NaN where a slot holds no object.

    They are in 0..1 from the centre of the first cell to that of the last.
    """
    cells = -(-np.array(read.frames.images.shape[1:3]) // CELL)
    pixels = read.slots[..., part] * (cells - 1) * CELL
    if part.start == 0:
        pixels = pixels + (CELL - 1) / 2
    return _of_objects(read, pixels)


def _of_objects(read: Read, values: np.ndarray) -> np.ndarray:
    """NaN where a slot holds no object."""
    assert read.objects is not None
    return np.where(read.objects[..., None] >= 0, values, np.nan).astype(np.float32)
