"""Entry points of a run: train on a store of this machine, or on servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import torch

from ingest.disk.durable import clear_write_errors
from ingest.open import open_store
from online.allocator import keep_freed_memory
from online.clips.catalog import DEFAULT_HOLDOUT, StoreCatalog
from online.config import RunConfig
from online.queue.client import Client
from online.queue.security import TrainerKeys
from online.queue.server_process import EmbeddedServer
from online.queue.stream import ServeConfig
from online.runs.checkpoint import latest_checkpoint, step_of
from online.runs.directory import RunDirectory
from online.session.journal import Origin
from online.session.loop import Outcome, Session
from online.session.status import Observer
from online.stop import StopRequested, StopSignals
from online.training.trainer import default_device, set_determinism


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

    Raises IngestError, OnlineError: in one line; what was saved stays.
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

    `keys` are one for each address, or none at all.

    Raises OnlineError: in one line; what was saved stays.
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
    """What `learn` returns; of a start that a signal cuts short, how far the run is saved."""
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
    changes = directory.claim(config)
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
        changes=changes,
    )
    with clear_write_errors(str(run)):
        return session.run()
