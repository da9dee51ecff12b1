"""A trained run that is opened: its models, and what they make of a store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from ingest.open import open_store
from ingest.store.protocols import Store
from online.allocator import keep_freed_memory
from online.clips.catalog import StoreCatalog
from online.clips.cursor import Cursor
from online.clips.holdout import DEFAULT_HOLDOUT
from online.config import RunConfig, load_config
from online.errors import RunError
from online.probing.evaluator import Evaluator, Findings, OnProgress
from online.probing.kept import KeptProbes, load_probes
from online.runs.checkpoint import Checkpoint, newest_readable, shards_of
from online.runs.directory import RunDirectory
from online.runs.log import not_a_run
from online.runs.models import load_pair
from online.runs.weights import load_into
from online.training.models import default_device, set_determinism
from setcon.model import SetCon
from setcon.probe import DecoderProbe

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRun:
    """A run's models as its newest checkpoint has them."""

    path: Path
    config: RunConfig
    checkpoint: Checkpoint
    where: Path
    """Path of the checkpoint."""
    model: SetCon
    untrained: SetCon
    device: torch.device
    probes: KeptProbes
    """Those that the run has fitted to this checkpoint, if it has."""

    @property
    def probe(self) -> DecoderProbe | None:
        """What draws pictures from slots of `model`; None where the run has made no probe of this
        checkpoint."""
        return None if self.probes.trained is None else self.probes.trained.fitted.probe


@dataclass(frozen=True, slots=True, eq=False)
class OpenedRun:
    """A run, and a store whose recordings it can be applied to."""

    trained: TrainedRun
    catalog: StoreCatalog
    evaluator: Evaluator

    def fit_probe(self, progress: OnProgress) -> DecoderProbe:
        """The probe on the training part of the store; the run's own if that is what it saw."""
        trained = self.trained
        return self.evaluator.fit(trained.model, progress=progress, kept=trained.probes)


def load_run(run: str | Path, *, device: torch.device | None = None) -> TrainedRun:
    """The models, the probe and the configuration of a run; damaged checkpoints are logged.

    Raises RunError: there is no run; CheckpointError: no checkpoint can be read, or it is of
    another configuration.
    """
    device = device or default_device()
    directory = RunDirectory(run := Path(run))
    if not directory.config_path.exists():
        raise not_a_run(run)
    found = newest_readable(directory.checkpoints)
    config = load_config(directory.config_path)
    keep_freed_memory()
    pair = load_pair(directory, config, device=device)
    load_into(pair.model, found.checkpoint.model, where=found.path)
    for damage in filter(None, (found.damage, pair.damage)):
        log.warning("%s; evaluating step %d", damage, found.checkpoint.step)
    return TrainedRun(
        path=run,
        config=config,
        checkpoint=found.checkpoint,
        where=found.path,
        model=pair.model,
        untrained=pair.untrained,
        device=device,
        probes=load_probes(
            directory.probe_folder(found.checkpoint.step), config.probe, device=device
        ),
    )


@contextmanager
def opened_store(
    trained: TrainedRun,
    store: str | Path,
    *,
    recordings: str = "*",
    holdout: float | None = None,
) -> Iterator[OpenedRun]:
    """A loaded run, with the recordings of a store; this process then computes as the run asks.

    Raises RunError: the frames are of another size than those learned from, or `holdout` is larger
    than what the run itself held out; None takes that. IngestError, OnlineError: otherwise, in one
    line.
    """
    set_determinism(trained.config.training)
    held = open_store(store)
    share = _holdout(trained, held) if holdout is None else holdout
    with closing(StoreCatalog(held, holdout=share, recordings=recordings)) as catalog:
        _check_frame_size(trained, catalog, recordings)
        _check_holdout(trained, catalog)
        evaluator = Evaluator.of(trained.config, catalog, trained.untrained, device=trained.device)
        yield OpenedRun(trained, catalog, evaluator)


@contextmanager
def opened_run(
    run: str | Path,
    store: str | Path,
    *,
    recordings: str = "*",
    holdout: float | None = None,
    device: torch.device | None = None,
) -> Iterator[OpenedRun]:
    """A run's newest checkpoint that can be read; raises as `load_run` and `opened_store`."""
    trained = load_run(run, device=device)
    with opened_store(trained, store, recordings=recordings, holdout=holdout) as opened:
        yield opened


def evaluate_run(
    run: str | Path,
    store: str | Path,
    *,
    recordings: str = "*",
    holdout: float | None = None,
    device: torch.device | None = None,
    progress: OnProgress | None = None,
) -> Findings:
    """Probe a run's newest checkpoint on the held-out part of a store; raises as `opened_run`."""
    with opened_run(run, store, recordings=recordings, holdout=holdout, device=device) as opened:
        trained = opened.trained
        step, kept = trained.checkpoint.step, trained.probes
        return opened.evaluator.evaluate(trained.model, step=step, progress=progress, kept=kept)


def _holdout(trained: TrainedRun, store: Store) -> float:
    """The share to score on: what the run held out of these recordings, if it knows them."""
    held_out = _held_out(trained.checkpoint)
    known = [held_out[name] for name in store.recordings() if name in held_out]
    return min(known, default=DEFAULT_HOLDOUT)


def _check_holdout(trained: TrainedRun, catalog: StoreCatalog) -> None:
    """Refuse to score what was learned from."""
    held_out = _held_out(trained.checkpoint)
    for summary in catalog.recordings():
        share = held_out.get(summary.name, 1.0)
        if summary.live and share > 0:
            continue  # the same minutes of a camera, whatever the share
        if catalog.holdout > share + 1e-3:
            raise RunError(
                f"{trained.path}: has trained on all but {share:.1%} of {summary.name}; "
                f"--holdout {catalog.holdout:g} would score what it has seen, omit it"
            )


def _held_out(checkpoint: Checkpoint) -> dict[str, float]:
    """Which share of each recording was held out.

    The servers put it into the cursors, for every recording that clips were planned from. Other
    recordings, and all in older checkpoints, are known if they were complete when the run began.
    """
    planned: dict[str, float] = {}
    feeds = [shard["feed"] for shard in shards_of(checkpoint.run)]
    cursors = [cursor for feed in feeds for cursor in feed["cursors"]]
    for cursor in msgspec.convert(cursors, list[Cursor | None]):
        if cursor is not None and cursor.holdout is not None:
            for name in (*cursor.base, *cursor.extents):
                planned[name] = min(cursor.holdout, planned.get(name, 1.0))
    complete: dict[str, float] = {}
    for key, share in checkpoint.run["held_out"].items():
        name = key.rpartition(":")[2]  # of several servers, the keys have numbers
        complete[name] = min(share, complete.get(name, 1.0))
    return complete | planned


def _check_frame_size(trained: TrainedRun, catalog: StoreCatalog, recordings: str) -> None:
    store, summaries = catalog.store.location, catalog.recordings()
    if not summaries:
        there = ", ".join(catalog.store.recordings()) or "none"
        raise RunError(f"{store}: no recording matches {recordings!r}; there are: {there}")
    learned = trained.checkpoint.run["frame_size"]
    for summary in summaries:
        if learned is not None and [summary.height, summary.width] != learned:
            raise RunError(
                f"{store}: {summary.name} has frames of {summary.width}x{summary.height}, "
                f"{trained.path} learned from {learned[1]}x{learned[0]}; ingest it with "
                f"--size {learned[1]}x{learned[0]}, or choose others with --recordings"
            )
