"""Entry points of a run: train on a store or on servers, and evaluate what a run has learned."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from ingest.durable import clear_write_errors
from ingest.open import open_store
from online.catalog import StoreCatalog
from online.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_into,
    load_untrained,
    newest_readable,
    step_of,
)
from online.client import Client
from online.config import RunConfig, load_config
from online.embedded import EmbeddedServer
from online.errors import RunError
from online.evaluate import Evaluator, Findings, Progress
from online.journal import Origin
from online.run_directory import RunDirectory
from online.security import TrainerKeys
from online.session import Outcome, Session
from online.status import Observer
from online.stop import StopRequested, StopSignals
from online.stream import ServeConfig
from online.trainer import arranged, set_determinism, untrained_model
from setcon.allocator import keep_freed_memory
from setcon.model import SetCon

log = logging.getLogger(__name__)

DEFAULT_HOLDOUT = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRun:
    """A run's models as its newest checkpoint has them."""

    config: RunConfig
    checkpoint: Checkpoint
    model: SetCon
    untrained: SetCon


def train_on_store(
    store: Path,
    run: Path,
    config: RunConfig,
    *,
    holdout: float = DEFAULT_HOLDOUT,
    minutes: float | None = None,
    device: torch.device | None = None,
    observe: Observer | None = None,
    command: Sequence[str] = (),
) -> Outcome:
    """Train on a store of this machine; it is served over ipc by a process of its own.

    Running it again continues from the last checkpoint.

    Raises:
        IngestError, OnlineError: in one line; what was saved stays.
    """

    def learn(stop: StopSignals, stack: ExitStack) -> Outcome:
        with stop.at_once():
            with closing(StoreCatalog(open_store(store))) as catalog:
                catalog.names()  # a clear error before a process starts, and what it leaves out
            server = stack.enter_context(EmbeddedServer(store, ServeConfig(holdout=holdout)))
        return _train(
            [server.address],
            run,
            config,
            stop,
            stack,
            minutes=minutes,
            device=device,
            observe=observe,
            origin=Origin(store=str(store), command=command),
            check_servers=server.check,
        )

    return _until_stopped(run, learn)


def train_connected(
    addresses: Sequence[str],
    run: Path,
    config: RunConfig,
    *,
    keys: Sequence[TrainerKeys] = (),
    minutes: float | None = None,
    device: torch.device | None = None,
    observe: Observer | None = None,
    command: Sequence[str] = (),
) -> Outcome:
    """Train on what one or several servers send; several are taken in turn, in this order.

    ``keys`` are one for each address, or none at all.

    Raises:
        OnlineError: in one line; what was saved stays.
    """

    def learn(stop: StopSignals, stack: ExitStack) -> Outcome:
        return _train(
            addresses,
            run,
            config,
            stop,
            stack,
            keys=keys,
            minutes=minutes,
            device=device,
            observe=observe,
            origin=Origin(store=" ".join(addresses), command=command),
        )

    return _until_stopped(run, learn)


def _until_stopped(run: Path, learn: Callable[[StopSignals, ExitStack], Outcome]) -> Outcome:
    """What ``learn`` returns; of a start that a signal cuts short, how far the run is saved."""
    with StopSignals() as stop, ExitStack() as stack:
        try:
            return learn(stop, stack)
        except StopRequested:
            newest = latest_checkpoint(RunDirectory(run).checkpoints)
            return Outcome(
                reason="stopped",
                step=step_of(newest) if newest else 0,
                signal_number=stop.received,
            )


def _train(
    addresses: Sequence[str],
    run: Path,
    config: RunConfig,
    stop: StopSignals,
    stack: ExitStack,
    *,
    keys: Sequence[TrainerKeys] = (),
    minutes: float | None,
    device: torch.device | None,
    observe: Observer | None,
    origin: Origin,
    check_servers: Callable[[], None] | None = None,
) -> Outcome:
    directory = stack.enter_context(RunDirectory(run))
    directory.claim(config)
    keep_freed_memory()
    set_determinism(config.training)
    clients = [
        stack.enter_context(Client(address, keys=key))
        for address, key in zip(addresses, keys or [None] * len(addresses), strict=True)
    ]
    session = Session(
        directory,
        config,
        clients,
        device=device or default_device(),
        stop=stop,
        minutes=minutes,
        observe=observe,
        origin=origin,
        check_servers=check_servers,
    )
    with clear_write_errors(str(run)):
        return session.run()


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


def evaluate_run(
    run: Path,
    store: Path,
    *,
    recordings: str = "*",
    holdout: float | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Probe a run's newest checkpoint that can be read on the held-out part of a store.

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
    catalog = StoreCatalog(open_store(store), holdout=share, recordings=recordings)
    try:
        _check_frame_size(run, trained, catalog, store, recordings)
        evaluator = Evaluator(
            catalog,
            trained.untrained,
            trained.config.evaluation,
            trained.config.probe,
            frame_stride=trained.config.stream.frame_stride,
            device=device,
        )
        return evaluator.evaluate(trained.model, step=trained.checkpoint.step, progress=progress)
    finally:
        catalog.close()


def default_device() -> torch.device:
    """A CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
