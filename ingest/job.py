"""One source into one recording, wherever that is done: here, or by a worker far away."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.errors import IngestError, NotAStoreError, VideoError
from ingest.open import open_or_create_store, open_store
from ingest.recorder import Recorded, RecordProgress, record
from ingest.store.blobs import open_blobs
from ingest.store.protocols import Store
from ingest.store.records import Codec, CommitRecord, RecordSettings, Source, StoreFormat
from ingest.video.open import open_source
from ingest.video.reader import VideoInfo
from ingest.video.sources import SourceSpec

FAILURES = (IngestError, OSError, ValueError)
"""What one source can fail with; anything else is a bug."""
MADE_SECONDS = 1.0
"""How long another process may take to make a store, which looks like none until it is there."""
_ENOUGH = 0.95
_MOST_LEFT_OUT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOutcome:
    """What became of one source: either a recording or an error."""

    source: str
    name: str | None = None
    recorded: Recorded | None = None
    error: IngestError | None = None
    warning: str | None = None
    """What is suspicious about a source that was recorded: one line."""


@dataclass(frozen=True, slots=True)
class Job:
    """A source, and the recording that it becomes."""

    spec: SourceSpec
    source: Source
    name: str

    def absolute(self) -> "Job":
        """The same for a process with another working directory."""
        return replace(self, spec=self.spec.absolute())

    def stopped(self) -> IngestOutcome:
        """The outcome of a job that was not begun."""
        error = IngestError(f"{self.spec}: stopped before it began; run the same command again")
        return IngestOutcome(source=str(self.spec), name=self.name, error=error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What all jobs have in common."""

    store: str | Path
    settings: RecordSettings
    store_format: StoreFormat | None = None
    """Of a new store; None is the usual one."""
    codec: Codec = "zstd"
    overwrite: bool = False
    durable: bool = True


class Target:
    """The store that recordings go into; a new one is made when the first source has opened.

    So no empty store stays where no source could be read. Threads and processes may make it at
    once.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lock = threading.Lock()
        self._opened: Store | None = None

    def there(self) -> Store | None:
        """The store, if it is there."""
        return None if open_blobs(self._order.store).found() is None else self.store()

    def store(self) -> Store:
        """The store, which is made if it is missing."""
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> Store:
        order, gives_up_at = self._order, time.monotonic() + MADE_SECONDS
        while True:
            try:
                if order.store_format is None:
                    return open_or_create_store(order.store, durable=order.durable)
                format_ = order.store_format
                return open_store(order.store, create_format=format_, durable=order.durable)
            except NotAStoreError:  # or not yet, while another process makes it
                if time.monotonic() >= gives_up_at:
                    raise
                time.sleep(MADE_SECONDS / 20)


def run_job(
    job: Job,
    order: Order,
    target: Target,
    *,
    tell: Callable[[RecordProgress], None],
    stop: threading.Event,
) -> IngestOutcome:
    """Record a source; what it fails with is in the outcome."""
    if stop.is_set():
        return job.stopped()
    try:
        with open_source(job.spec, order.settings, should_stop=stop.is_set) as reader:
            recorded = record(
                reader,
                target.store(),
                name=job.name,
                source=job.source,
                settings=replace(order.settings, reader=reader.info.reader),
                codec=order.codec,
                overwrite=order.overwrite,
                progress=tell,
                stop=stop,
            )
            warning = _suspicion(reader.info, recorded.commit)
    except FAILURES as error:
        return IngestOutcome(source=str(job.spec), name=job.name, error=failure(job.spec, error))
    return IngestOutcome(source=str(job.spec), name=job.name, recorded=recorded, warning=warning)


def _suspicion(info: VideoInfo, commit: CommitRecord) -> str | None:
    """One line where a complete recording lacks much of what its source has, or promises."""
    found = [fault for fault in (_shortfall(info, commit), _losses(commit)) if fault]
    return f"{info.name}: {'; '.join(found)}" if found and commit.complete else None


def _losses(commit: CommitRecord) -> str | None:
    """How much was left out, where that is over a hundredth."""
    counted = commit.counters
    if counted.left_out <= _MOST_LEFT_OUT * counted.found:
        return None
    return (
        f"{counted.losses_text}; look at the source, and record it again without loss if it matters"
    )


def _shortfall(info: VideoInfo, commit: CommitRecord) -> str | None:
    """Where a recording is shorter than the header of its source promises.

    By over a second and a twentieth, and also by a twentieth of the frames where the header counts
    them: some counts are too high, and an edit list leaves frames out but gives the right length.
    """
    promised, counted = info.promised_seconds, commit.counters
    if promised is None or commit.last_pts_ns is None:
        return None
    interval = 1 / info.fps if info.fps else 0.0
    came = max(commit.duration_seconds, commit.last_pts_ns / 1e9) + interval
    enough_frames = info.promised_frames and counted.found >= _ENOUGH * info.promised_frames
    if promised - came <= 1 or came >= _ENOUGH * promised or enough_frames:
        return None
    return (
        f"ends after {came:.1f} s, and its header promises {promised:.1f} s; if it was cut off, "
        "copy it again whole and use --overwrite"
    )


def failure(source: str | SourceSpec, error: Exception) -> IngestError:
    """What became of one source, as one line."""
    if isinstance(error, IngestError):
        return error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return VideoError(f"{source}: cannot be ingested ({reason}); check the file and its rights")
