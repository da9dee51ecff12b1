"""The slots of every frame in one HDF5 file, for whatever is built on top of them.

/                attributes: run, step, settings (TOML), store
/RECORDING/      slots    (n, k, d)     float32
                 alphas   (n, k, h, w)  uint8, shares of 255
                 pts_ns   (n)           int64, nanoseconds
                 gap      (n)           bool, where a frame does not continue the one before
                 held_out (n)           bool, what the run never learned from
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ingest.durable import clear_write_errors
from online.catalog import RecordingSummary
from online.clip import Interval
from online.config import dump_config
from online.errors import RunError
from online.readout import FRAMES_AT_ONCE, Read, Readout
from online.trained_run import opened_run


@dataclass(frozen=True, slots=True)
class Embedded:
    """What ``embed_run`` wrote."""

    path: Path
    recordings: int
    frames: int
    step: int


def embed_run(
    run: Path,
    store: Path,
    path: Path,
    *,
    recordings: str = "*",
    overwrite: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Embedded:
    """Write what a run's newest checkpoint makes of all frames of a store.

    The probe that alphas come from is fitted on the training part of the store, as by `setcon
    eval`. The file appears when it is whole.

    Raises:
        RunError: the file exists and ``overwrite`` is not set, or as for `opened_run`.
        IngestError, OnlineError: otherwise, in one line.
    """
    report = progress or (lambda what, share: None)
    if path.exists() and not overwrite:
        raise RunError(f"{path}: exists; name another file, or use --overwrite")
    partial = path.with_name(f"{path.name}.partial")
    with opened_run(run, store, recordings=recordings) as opened, clear_write_errors(str(path)):
        trained = opened.trained
        summaries = opened.catalog.recordings()
        probe = opened.evaluator.fit(trained.model, progress=report)
        readout = Readout(trained.model, probe, opened.catalog, device=opened.evaluator.device)
        try:
            with h5py.File(partial, "w") as file:
                file.attrs.update(
                    run=str(run),
                    step=trained.checkpoint.step,
                    settings=dump_config(trained.config),
                    store=str(store),
                )
                for summary in summaries:
                    _embed(file, readout, summary, report)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return Embedded(path, len(summaries), sum(s.length for s in summaries), trained.checkpoint.step)


def _embed(
    file: h5py.File,
    readout: Readout,
    summary: RecordingSummary,
    report: Callable[[str, float], None],
) -> None:
    group = file.create_group(summary.name)
    held_out = np.zeros(summary.length, np.bool_)
    for interval in summary.held_out:
        held_out[interval.start : interval.stop] = True
    group["held_out"] = held_out
    columns: dict[str, h5py.Dataset] = {}
    for read in readout.read(summary.name, Interval(0, summary.length)):
        for name, values in _columns(read).items():
            if name not in columns:
                columns[name] = group.create_dataset(
                    name,
                    shape=(summary.length, *values.shape[1:]),
                    dtype=values.dtype,
                    chunks=(min(FRAMES_AT_ONCE, summary.length), *values.shape[1:]),
                    compression="gzip" if name == "alphas" else None,
                    compression_opts=1 if name == "alphas" else None,
                )
            columns[name][read.start : read.start + len(values)] = values
        report(f"embedding {summary.name}", (read.start + len(read.frames)) / summary.length)


def _columns(read: Read) -> dict[str, np.ndarray]:
    return {
        "slots": read.slots.astype(np.float32),
        "alphas": (read.alphas * 255).round().astype(np.uint8),
        "pts_ns": read.frames.pts_ns,
        "gap": read.frames.gap,
    }
