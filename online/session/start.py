"""Entry points of a run: train on a store of this machine, or on servers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import torch

from ingest.disk.durable import clear_write_errors
from ingest.open import open_store
from online.clips.catalog import StoreCatalog
from online.clips.holdout import DEFAULT_HOLDOUT
from online.config import RunConfig
from online.queue.keys import TrainerKeys
from online.queue.server_process import ServerProcess
from online.queue.stream import ServeConfig
from online.runs.checkpoint import latest_checkpoint
from online.runs.directory import RunDirectory
from online.runs.names import step_of
from online.session.outcome import Outcome
from online.session.status import Observer
from online.session.wiring import Servers, Start, wired
from online.stop import StopRequested, StopSignals


def train_on_store(
    store: str | Path,
    run: str | Path,
    config: RunConfig,
    *,
    holdout: float = DEFAULT_HOLDOUT,
    minutes: float | None = None,
    device: torch.device | None = None,
    init: str | Path | None = None,
    observe: Observer | None = None,
    command: Sequence[str] = (),
) -> Outcome:
    """Train on a store of this machine; it is served over ipc by a process of its own.

    Running it again continues from the last checkpoint. A new run begins with the newest model of
    the run `init`, if one is named.

    Raises IngestError, OnlineError: in one line; what was saved stays.
    """
    return train(
        Start(
            run=run,
            config=config,
            store=store,
            holdout=holdout,
            minutes=minutes,
            device=device,
            init=None if init is None else Path(init),
            observers=[] if observe is None else [observe],
            command=command,
        )
    )


def train_connected(
    addresses: Sequence[str],
    run: str | Path,
    config: RunConfig,
    *,
    keys: Sequence[TrainerKeys] = (),
    minutes: float | None = None,
    device: torch.device | None = None,
    init: str | Path | None = None,
    observe: Observer | None = None,
    command: Sequence[str] = (),
) -> Outcome:
    """Train on what one or several servers send; several are taken in turn, in this order.

    `keys` are one for each address, or none at all.

    Raises OnlineError: in one line; what was saved stays.
    """
    return train(
        Start(
            run=run,
            config=config,
            addresses=addresses,
            keys=keys,
            minutes=minutes,
            device=device,
            init=None if init is None else Path(init),
            observers=[] if observe is None else [observe],
            command=command,
        )
    )


def train(start: Start) -> Outcome:
    """Begin or continue a run; where a signal cuts the start short, how far the run is saved.

    Raises IngestError, OnlineError: in one line; what was saved stays.
    """
    with StopSignals(start.world.is_stopping) as stop, ExitStack() as stack:
        try:
            with stop.at_once():
                servers = _servers(start, stack)
            with clear_write_errors(str(start.run)):
                return wired(start, servers, stop, stack).run()
        except StopRequested:
            newest = latest_checkpoint(RunDirectory(Path(start.run)).checkpoints)
            return Outcome(
                reason="stopped",
                step=step_of(newest) if newest else 0,
                signal_number=stop.received,
            )


def _servers(start: Start, stack: ExitStack) -> Servers:
    if start.store is None:
        return Servers(start.addresses, check=lambda: None)
    with closing(StoreCatalog(open_store(start.store))) as catalog:
        catalog.names()  # a clear error before a process starts, and what it leaves out
    config = ServeConfig(holdout=start.holdout)
    server = stack.enter_context(ServerProcess(start.store, config))
    return Servers([server.address], check=server.check)
