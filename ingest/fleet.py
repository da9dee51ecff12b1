"""Sources that the workers of a Ray cluster ingest, one task for each recording.

    this process: names all ──jobs──▶ Ray ──one task each──▶ workers ─▶ store
         ▲                                                     │
         └──── progress and outcomes ◀──── relay, an actor ◀───┘

Ray places the tasks, and runs those of dead workers again: a recording goes on at its last commit,
as it does on one machine. What a source fails with is a value, so only death is retried.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest.addresses import is_address
from ingest.disk.locks import FileLock, is_locked
from ingest.errors import IngestError, StoreError
from ingest.job import IngestOutcome, Job, Order, Target, run_job
from ingest.recorder import RecordProgress

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
TELL_SECONDS = 1.0
"""How often a worker reports, and hears whether to stop."""
REACH_SECONDS = 5.0
LEAVE_SECONDS = 30.0
"""How long workers that are asked to stop may take to commit what they have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A Ray cluster that ingests."""

    address: str | None = None
    """HOST:PORT of the cluster's head. None is that of RAY_ADDRESS, else a cluster that runs on
    this machine, else one that is started here."""
    retries: int = 20
    """How often the task of a recording is run again after its worker died."""

    def run(
        self,
        jobs: Sequence[Job],
        order: Order,
        *,
        workers: int | None,
        tell: Callable[[RecordProgress], None],
        stop: threading.Event,
    ) -> dict[str, IngestOutcome]:
        """The outcome of each job, by name; at most `workers` at once.

        Raises IngestError where there is no cluster, and StoreError where its machines do not share
        the store.
        """
        order = replace(order, store=_absolute(order.store))
        with self._connected() as ray:
            _check_shared(ray, order.store)
            far = [job.absolute() for job in jobs]
            return _Run(ray, order, self.retries, tell).outcomes(far, workers, stop)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            import ray
        except ImportError:
            raise IngestError(
                "--engine ray needs Ray, which is not installed; run pip install -e '.[fleet]'"
            ) from None
        if ray.is_initialized():  # by the program that calls; it stays connected
            here = ray.get_runtime_context().gcs_address
            if self.address not in (None, here):
                raise IngestError(
                    f"Ray at {self.address}: this program is connected to {here} already; leave "
                    "the address out, or call ray.shutdown() first"
                )
            yield ray
            return
        address = self.address or os.environ.get("RAY_ADDRESS")
        if address is not None and address.startswith("ray://"):
            raise IngestError(
                f"Ray at {address}: this is not how workers reach the sources; run the command on "
                "a machine of the cluster, with HOST:PORT of its head (6379)"
            )
        try:
            _reach(address)
            with _own_signals():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises that itself where its own processes are slow
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise IngestError(
                f"Ray at {address or 'this machine'}: {why}; start it with `ray start --head`, or "
                "name another with --ray"
            ) from None
        _keep_quiet()
        try:
            yield ray
        finally:
            ray.shutdown()


def _reach(address: str | None) -> None:
    """OSError where nothing listens there, of which Ray is sure after a minute only."""
    if address and (found := re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d{1,5})", address)):
        socket.create_connection((found[1], int(found[2])), timeout=REACH_SECONDS).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does at SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _keep_quiet() -> None:
    """Print nothing of each worker that dies: Ray has a thousand characters, and no setting."""
    from ray._private import worker

    setattr(worker, "_worker_logs_enabled", False)  # noqa: B010 - it may not be there


def _on_node(ray: Any, node: str, what: Any) -> Any:
    """A function or class that runs on one machine of the cluster, and needs no core there."""
    placed = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=placed)(what)


class _Run:
    """Jobs that are with the cluster."""

    def __init__(
        self, ray: Any, order: Order, retries: int, tell: Callable[[RecordProgress], None]
    ) -> None:
        self._ray, self._tell, self._retries = ray, tell, retries
        self._order = ray.put(order)
        here = ray.get_runtime_context().get_node_id()
        self._relay = _on_node(ray, here, Relay).remote()
        self._task = ray.remote(num_cpus=1, max_retries=retries)(_record_far)
        self._at_work: dict[Any, Job] = {}

    def outcomes(
        self, jobs: Sequence[Job], workers: int | None, stop: threading.Event
    ) -> dict[str, IngestOutcome]:
        """Hand out all jobs, some at a time, and wait for them."""
        found: dict[str, IngestOutcome] = {}
        waiting = list(reversed(jobs))
        try:
            while waiting or self._at_work:
                if stop.is_set():
                    self._relay.stop.remote()
                    found |= {job.name: job.stopped() for job in waiting}
                    waiting.clear()
                most = workers or self._cores()
                while waiting and len(self._at_work) < most:
                    job = waiting.pop()
                    self._at_work[self._task.remote(job, self._order, self._relay)] = job
                found |= self._ended(POLL_SECONDS)
        except BaseException:  # Ctrl-C: the workers end at their next block
            self._leave()
            raise
        return found

    def _cores(self) -> int:
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if not cores:
            raise IngestError(
                "Ray: no machine of the cluster has cores to work on; start one with `ray start "
                "--address HEAD:6379`"
            )
        return cores

    def _ended(self, seconds: float) -> dict[str, IngestOutcome]:
        tasks = list(self._at_work)
        ended = self._ray.wait(tasks, num_returns=len(tasks), timeout=seconds)[0] if tasks else []
        news, again = self._ray.get(self._relay.take.remote())
        for now in news:
            self._tell(now)
        for name in again:
            log.warning("%s: its worker died, and another goes on", name)
        return {self._at_work[task].name: self._outcome(task) for task in ended}

    def _outcome(self, task: Any) -> IngestOutcome:
        job = self._at_work.pop(task)
        try:
            outcome, warnings = self._ray.get(task)
        except self._ray.exceptions.RayTaskError:
            raise  # a bug, as it would be here
        except self._ray.exceptions.RayError as error:
            died = IngestError(
                f"{job.spec}: its worker died {self._retries + 1} times ({type(error).__name__}); "
                "what was committed is kept; look at Ray's logs, and run the same command again"
            )
            return IngestOutcome(source=str(job.spec), name=job.name, error=died)
        for warning in warnings:
            log.warning("%s", warning)
        return outcome

    def _leave(self) -> None:
        self._relay.stop.remote()
        tasks = list(self._at_work)
        if tasks:
            _, late = self._ray.wait(tasks, num_returns=len(tasks), timeout=LEAVE_SECONDS)
            for task in late:
                self._ray.cancel(task, force=True)


class Relay:
    """An actor that workers report to."""

    def __init__(self) -> None:
        self._news: dict[str, RecordProgress] = {}
        self._begun: set[str] = set()
        self._again: list[str] = []
        self._is_stopped = False

    def begin(self, name: str) -> bool:
        """Note that a worker takes on a recording, for the first time or after another died;
        returns whether to stop.
        """
        if name in self._begun:
            self._again.append(name)
        self._begun.add(name)
        return self._is_stopped

    def tell(self, now: RecordProgress) -> bool:
        """Note how far a recording is; returns whether to stop."""
        self._news[now.name] = now
        return self._is_stopped

    def take(self) -> tuple[list[RecordProgress], list[str]]:
        """What is new: of each recording the latest, and the names of those begun again."""
        news, self._news = self._news, {}
        again, self._again = self._again, []
        return list(news.values()), again

    def stop(self) -> None:
        """Have workers stop when they report next."""
        self._is_stopped = True


class _Warnings(logging.Handler):
    """Keeps lines that would be printed where nobody reads them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _record_far(job: Job, order: Order, relay: Any) -> tuple[IngestOutcome, list[str]]:
    """Run by a worker; returns its warnings too."""
    import ray

    stop, told_at = threading.Event(), 0.0
    if ray.get(relay.begin.remote(job.name)):
        stop.set()

    def tell(now: RecordProgress) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= TELL_SECONDS:
            told_at = time.monotonic()
            if ray.get(relay.tell.remote(now)):
                stop.set()

    warnings, ours = _Warnings(), logging.getLogger("ingest")
    ours.addHandler(warnings)
    try:
        return run_job(job, order, Target(order), tell=tell, stop=stop), warnings.lines
    finally:
        ours.removeHandler(warnings)


def _absolute(store: str | Path) -> str | Path:
    """Workers have a working directory of their own."""
    return store if is_address(store) else Path(store).absolute()


def _check_shared(ray: Any, store: str | Path) -> None:
    """StoreError where machines of the cluster have other folders, or locks, than this one."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if is_address(store) or len(nodes) < 2:
        return
    folder = next(path for path in (Path(store), *Path(store).parents) if path.is_dir())
    probe = folder / f".setcon-{uuid.uuid4().hex}"
    lock = FileLock(probe, what="this check")
    try:
        for node in nodes:
            try:
                is_seen = ray.get(_on_node(ray, node["NodeID"], is_locked).remote(probe))
            except ray.exceptions.RayError as error:
                why = getattr(error, "cause", error)
                raise StoreError(
                    f"{store}: {node['NodeManagerHostname']} cannot look at it ({why}); mount it "
                    "there at the same path, or use a store in object storage (s3://...)"
                ) from None
            if not is_seen:
                raise StoreError(
                    f"{store}: {node['NodeManagerHostname']} does not see a lock that this machine "
                    "holds there; use a store in object storage (s3://...), or one machine"
                )
    finally:
        lock.release()
        probe.unlink(missing_ok=True)
