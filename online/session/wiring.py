"""What a run is made of: every part is built here, and given the parts that it uses.

Start ─▶ directory, clients ─▶ state ─▶ journal, watcher ─▶ probes, intake, saving ─▶ Session
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from online.allocator import keep_freed_memory
from online.clips.holdout import DEFAULT_HOLDOUT
from online.clips.joined import JoinedSource
from online.config import RunConfig
from online.errors import ConfigError
from online.probing.evaluator import Evaluator
from online.queue.client import Client
from online.queue.feed import Fate
from online.queue.keys import TrainerKeys
from online.ranks import check_shards
from online.runs.directory import RunDirectory
from online.runs.segments import EndWeights
from online.runs.status_file import StatusFile
from online.session.glimpses import Glimpses
from online.session.intake import Intake
from online.session.journal import Journal, Origin
from online.session.loop import Session
from online.session.probes.book import ProbeBook
from online.session.probes.process import ProbeProcess
from online.session.probes.runners import ProbeInline, Probes, ProbesElsewhere, ProbeWorker
from online.session.saving import Saving
from online.session.state import RunState
from online.session.status import Observer, Watcher
from online.session.world import World
from online.stop import StopSignals
from online.training.models import default_device, set_determinism
from online.training.pieces import Pieces
from online.training.prequential import Prequential


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of a run: what it learns from, where, and for how long.

    Raises ConfigError where it names no footage, both a store and addresses, or a wrong number of
    keys.
    """

    run: str | Path
    """Directory of the run, kept as a Path."""
    config: RunConfig
    store: str | Path | None = None
    """Location of a store, kept as text and served by a process of its own; None to connect to
    `addresses`."""
    holdout: float = DEFAULT_HOLDOUT
    """Share of each recording of `store` that is not learned from."""
    addresses: Sequence[str] = ()
    keys: Sequence[TrainerKeys] = ()
    """One for each address, or none at all."""
    minutes: float | None = None
    """Minutes of the whole run, over all its starts; None for no limit."""
    device: torch.device | None = None
    """None is a GPU where there is one."""
    init: Path | None = None
    """A run whose newest model a new run begins with; a run that continues has its own."""
    observers: Sequence[Observer] = ()
    observe_clips: Callable[[Fate], None] = lambda fate: None
    """Called with what became of each clip that the run was offered, in order."""
    command: Sequence[str] = ()
    """Words of a command line that continues the run."""
    world: World = field(default_factory=World)

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", Path(self.run))
        if self.store is not None:
            object.__setattr__(self, "store", str(self.store))
        if self.store is None and not self.addresses:
            raise ConfigError(f"{self.run}: nothing to learn from; give a store or addresses")
        if self.store is not None and self.addresses:
            raise ConfigError(f"{self.run}: a store and addresses; give one of them")
        if len(self.keys) not in (0, len(self.addresses)):
            raise ConfigError(
                f"{self.run}: {len(self.keys)} keys for {len(self.addresses)} addresses; give one "
                "for each, or none"
            )

    @property
    def budget_seconds(self) -> float:
        """Seconds of the whole run."""
        return math.inf if self.minutes is None else 60 * self.minutes

    @property
    def origin(self) -> Origin:
        """Where the footage comes from, for the report."""
        store = " ".join(self.addresses) if self.store is None else self.store
        return Origin(store=str(store), command=self.command)


@dataclass(frozen=True, slots=True)
class Servers:
    """What a start connects to."""

    addresses: Sequence[str]
    check: Callable[[], None]
    """Raises ServerError where a server that this process has started is gone."""


def wired(start: Start, servers: Servers, stop: StopSignals, stack: ExitStack) -> Session:
    """The loop of a run and all that it needs, which `stack` closes.

    Raises OnlineError: the run's directory cannot be used, or its settings do not fit together.
    """
    config = start.config
    directory = stack.enter_context(RunDirectory(Path(start.run), writes=start.world.writes))
    check_world(start.world, config)
    changes = directory.claim(config) if start.world.writes else []
    start.world.gathered([0])  # others go on where rank 0 has not refused the run
    keep_freed_memory()
    set_determinism(config.training)
    device = start.device or default_device()
    shards = start.world.share_of(config.training.shards)
    by_shard = [_clients(servers.addresses, start.keys, stack) for _ in shards]
    clients = by_shard[0]
    source = JoinedSource(clients, recordings=config.stream.recordings)
    state = RunState(
        config,
        by_shard,
        device=device,
        world=start.world,
        stop=stop,
        observe_clips=start.observe_clips,
    )
    prequential = Prequential(state.trainer, config.training, config.stream.clip)
    steps, budget = config.training.steps, start.budget_seconds
    observers = [*_status_files(directory, stack), *start.observers]
    watcher = Watcher(observers, state, prequential, steps=steps, budget_seconds=budget)
    journal = Journal(directory, state)
    probes: Probes = ProbesElsewhere()
    if directory.writes:
        book = ProbeBook(directory, journal, state.clock)
        if config.evaluation.beside:
            process = ProbeProcess(directory, clients, device=device)
            probes = ProbeWorker(state, book, watcher, stop, process)
        else:
            evaluator = Evaluator.of(config, source, state.untrained, device=device)
            probes = ProbeInline(state, book, watcher, stop, evaluator)
    pieces = Pieces()
    return Session(
        config,
        state,
        intake=Intake(
            config.stream,
            state,
            source,
            start.origin,
            prequential=prequential,
            journal=journal,
            watcher=watcher,
            stop=stop,
            check_servers=servers.check,
        ),
        saving=Saving(
            directory,
            config.training,
            state,
            journal=journal,
            watcher=watcher,
            changes=changes,
            init=start.init,
            end_weights=_end_weights(state, directory, clients),
        ),
        probes=probes,
        glimpses=Glimpses(directory, state.trainer, pieces, share=config.training.picture_share),
        pieces=pieces,
        journal=journal,
        watcher=watcher,
        stop=stop,
        budget_seconds=budget,
    )


def check_world(world: World, config: RunConfig) -> None:
    """Refuse a number of ranks that the shards of a run cannot be dealt to.

    Raises ConfigError: naming both numbers.
    """
    shards = config.training.shards
    check_shards(shards, world.size, what=f"training.shards is {shards}")


def _clients(
    addresses: Sequence[str], keys: Sequence[TrainerKeys], stack: ExitStack
) -> list[Client]:
    every = keys or [None] * len(addresses)
    return [
        stack.enter_context(Client(address, keys=key))
        for address, key in zip(addresses, every, strict=True)
    ]


def _status_files(directory: RunDirectory, stack: ExitStack) -> list[StatusFile]:
    if not directory.writes:
        return []
    status_file = StatusFile(directory.status_path)
    stack.callback(status_file.close)
    return [status_file]


def _end_weights(
    state: RunState, directory: RunDirectory, clients: Sequence[Client]
) -> EndWeights | None:
    if state.segments is None:
        return None
    if len(clients) > 1:
        raise ConfigError("training.keep_segments is for one server: several come by turns")
    return EndWeights(directory.segments, state.segments) if directory.writes else None
