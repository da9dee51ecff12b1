"""What a run has learned, once it is there: its models, and what they make of a store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ingest.open import open_store
from online.catalog import DEFAULT_HOLDOUT, StoreCatalog
from online.checkpoint import Checkpoint, load_into, load_untrained, newest_readable
from online.config import RunConfig, load_config
from online.errors import RunError
from online.evaluate import Evaluator, Findings, Progress
from online.run_directory import RunDirectory
from online.trainer import arranged, default_device, set_determinism, untrained_model
from setcon.allocator import keep_freed_memory
from setcon.model import SetCon

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRun:
    """A run's models as its newest checkpoint has them."""

    config: RunConfig
    checkpoint: Checkpoint
    model: SetCon
    untrained: SetCon


@dataclass(frozen=True, slots=True, eq=False)
class OpenedRun:
    """A run and a store that it can be held against."""

    trained: TrainedRun
    catalog: StoreCatalog
    evaluator: Evaluator


def load_run(run: Path, *, device: torch.device | None = None) -> TrainedRun:
    """The models of a run directory; which checkpoints are damaged is logged.

    Raises:
        RunError: there is no run.
        CheckpointError: no checkpoint can be read, or it is of another configuration.
    """
    directory = RunDirectory(run)
    if not directory.config_path.exists():
        raise RunError(f"{run}: is not a run (no config.toml)")
    found = newest_readable(directory.checkpoints)
    config = load_config(directory.config_path)
    model, untrained = (
        arranged(
            untrained_model(config.model, seed=config.training.seed),
            config.training,
            device or default_device(),
        )
        for _ in range(2)
    )
    load_into(model, found.checkpoint.model, where=found.path)
    rebuilt = load_untrained(untrained, directory.checkpoint(0))
    for damage in filter(None, (found.damage, rebuilt)):
        log.warning("%s; evaluating step %d", damage, found.checkpoint.step)
    return TrainedRun(config, found.checkpoint, model.eval(), untrained.eval())


@contextmanager
def opened_run(
    run: Path,
    store: Path,
    *,
    recordings: str = "*",
    holdout: float | None = None,
    device: torch.device | None = None,
) -> Iterator[OpenedRun]:
    """A run's newest checkpoint that can be read, beside the recordings of a store.

    Raises:
        RunError: the frames are of another size than those learned from, or ``holdout`` is larger
            than what the run itself held out; None takes that.
        IngestError, OnlineError: otherwise, in one line.
    """
    device = device or default_device()
    keep_freed_memory()
    trained = load_run(run, device=device)
    set_determinism(trained.config.training)
    share = _holdout(run, trained, store, holdout)
    with closing(StoreCatalog(open_store(store), holdout=share, recordings=recordings)) as catalog:
        _check_frame_size(run, trained, catalog, store, recordings)
        evaluator = Evaluator(
            catalog,
            trained.untrained,
            trained.config.evaluation,
            trained.config.probe,
            frame_stride=trained.config.stream.frame_stride,
            device=device,
        )
        yield OpenedRun(trained, catalog, evaluator)


def evaluate_run(
    run: Path,
    store: Path,
    *,
    recordings: str = "*",
    holdout: float | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Probe a run's newest checkpoint on the held-out part of a store; raises as `opened_run`."""
    with opened_run(run, store, recordings=recordings, holdout=holdout, device=device) as opened:
        return opened.evaluator.evaluate(
            opened.trained.model, step=opened.trained.checkpoint.step, progress=progress
        )


def _holdout(run: Path, trained: TrainedRun, store: Path, asked: float | None) -> float:
    """The share to score on: what the run held out of these recordings, if it knows them."""
    there = set(open_store(store).recordings())
    held_out = [
        (share, name)
        for key, share in trained.checkpoint.run["held_out"].items()
        if (name := key.rpartition(":")[2]) in there  # of several servers, the keys have numbers
    ]
    if not held_out:
        return DEFAULT_HOLDOUT if asked is None else asked
    share, name = min(held_out)
    if asked is not None and asked > share + 1e-3:
        raise RunError(
            f"{run}: has trained on all but {share:.1%} of {name}; "
            f"--holdout {asked:g} would score what it has seen, leave it out"
        )
    return share if asked is None else asked


def _check_frame_size(
    run: Path, trained: TrainedRun, catalog: StoreCatalog, store: Path, recordings: str
) -> None:
    summaries = catalog.recordings()
    if not summaries:
        there = ", ".join(catalog.store.recordings()) or "none"
        raise RunError(f"{store}: no recording matches {recordings!r}; there are: {there}")
    learned = trained.checkpoint.run["frame_size"]
    for summary in summaries:
        if learned is not None and [summary.height, summary.width] != learned:
            raise RunError(
                f"{store}: {summary.name} has frames of {summary.height}x{summary.width}, "
                f"{run} learned from {learned[0]}x{learned[1]}; "
                f"ingest it with --size {learned[0]}, or choose others with --recordings"
            )
