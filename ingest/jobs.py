"""Many sources into one store: one recording each, several at a time, failures last."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.disk.threads import available_cores
from ingest.errors import IngestError, StoreError, VideoError
from ingest.open import open_or_create_store, open_store
from ingest.recorder import Recorded, RecordProgress, record
from ingest.store.blobs import open_blobs
from ingest.store.protocols import Store
from ingest.store.records import Codec, CommitRecord, RecordSettings, Source, StoreFormat
from ingest.video.identity import fingerprint, name_recordings
from ingest.video.open import open_source
from ingest.video.reader import VideoInfo
from ingest.video.sources import SourceSpec, expand, with_masks, with_track

_FAILURES = (IngestError, OSError, ValueError)
"""What one source can fail with; anything else is a bug."""
_ENOUGH = 0.95
_MOST_WORKERS = 4
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
class _Job:
    spec: SourceSpec
    source: Source
    name: str


class _Target:
    """The store that recordings go into; a new one is made when the first source has opened.

    So no empty store stays where no source could be read.
    """

    def __init__(
        self, location: str | Path, store_format: StoreFormat | None, *, durable: bool
    ) -> None:
        self._location, self._durable = location, durable
        self._format: StoreFormat | None = store_format
        self._lock = threading.Lock()
        self.there = None if open_blobs(location).found() is None else self._open()

    def store(self) -> Store:
        """The store, which is made if it is missing; several threads may ask."""
        with self._lock:
            if self.there is None:
                self.there = self._open()
            return self.there

    def _open(self) -> Store:
        if self._format is None:
            return open_or_create_store(self._location, durable=self._durable)
        return open_store(self._location, create_format=self._format, durable=self._durable)


def ingest_sources(
    sources: Sequence[str],
    store_location: str | Path,
    settings: RecordSettings,
    *,
    store_format: StoreFormat | None = None,
    codec: Codec = "zstd",
    track: int | None = None,
    masks: str | Path | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    durable: bool = True,
    progress: Callable[[RecordProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> list[IngestOutcome]:
    """Record every source into a store, which is made where there is none.

    Sources are files, globs, folders of files, of images or of folders of images, data sets, and
    frame archives. `codec` is what compresses their frames, `track` which video track to read, from
    1 on, and `masks` names the masks of all sources. A source that fails does not stop the others;
    its outcome comes last. Unless `durable`, nothing waits for the disk, and a power cut may cost
    what was committed. `progress` is called from several threads when `workers`, the sources at
    once, are more than one; by default there are as many as cores, up to four. Where no source
    opens, no store is made. Raises StoreError only where the location is not a store.
    """
    stop = stop or threading.Event()
    specs, failed = _expand_all(sources)
    if track is not None:
        specs = with_track(specs, track)
    if masks is not None:
        specs, unmasked = _with_masks(specs, Path(masks))
        failed += unmasked
    if not specs:
        return failed
    target = _Target(store_location, store_format, durable=durable)
    jobs, unreadable = _plan(specs, target.there)

    def run(job: _Job) -> IngestOutcome:
        return _run(job, target, settings, codec, overwrite, progress, stop)

    one_each = {job.name: job for job in jobs}  # copies of one file share a name
    with ThreadPoolExecutor(max_workers=workers or _good_workers(len(jobs))) as pool:
        try:
            done = dict(zip(one_each, pool.map(run, one_each.values()), strict=True))
        except BaseException:  # Ctrl-C: the workers end at their next block
            stop.set()
            raise
    outcomes = [replace(done[job.name], source=str(job.spec)) for job in jobs]
    return [*outcomes, *unreadable, *failed]


def _good_workers(sources: int) -> int:
    """While one source is opened or waits for the disk, another is decoded, on all cores."""
    return max(1, min(sources, available_cores(), _MOST_WORKERS))


def recordings_by_size(store: Store) -> dict[tuple[int, int], list[str]]:
    """Names by width and height of their frames; a recording with a damaged record is left out."""
    sizes: dict[tuple[int, int], list[str]] = {}
    for name in store.recordings():
        with suppress(StoreError):
            commit = store.commit(name)
            sizes.setdefault((commit.width, commit.height), []).append(name)
    return sizes


def _expand_all(sources: Sequence[str]) -> tuple[list[SourceSpec], list[IngestOutcome]]:
    """All sources, each once, and the words that name none."""
    specs: dict[tuple[str | Path, str], SourceSpec] = {}
    failed = []
    for source in sources:
        try:
            for spec in expand(source):
                specs.setdefault((spec.address or spec.path.resolve(), spec.part), spec)
        except _FAILURES as error:
            failed.append(IngestOutcome(source=source, error=_told(source, error)))
    return list(specs.values()), failed


def _with_masks(
    specs: list[SourceSpec], masks: Path
) -> tuple[list[SourceSpec], list[IngestOutcome]]:
    """The sources that have masks there, and those that have none."""
    found = list(zip(specs, with_masks(specs, masks), strict=True))
    failed = [
        IngestOutcome(source=str(spec), error=each)
        for spec, each in found
        if isinstance(each, VideoError)
    ]
    return [each for _, each in found if isinstance(each, SourceSpec)], failed


def _plan(
    specs: Sequence[SourceSpec], store: Store | None
) -> tuple[list[_Job], list[IngestOutcome]]:
    """A fingerprint and a name for every source that can be read."""
    readable: list[tuple[SourceSpec, Source]] = []
    failed = []
    for spec in specs:
        try:
            readable.append((spec, fingerprint(spec)))
        except _FAILURES as error:
            failed.append(IngestOutcome(source=str(spec), error=_told(spec, error)))
    names = name_recordings([source for _, source in readable], store)
    jobs = [_Job(spec, source, name) for (spec, source), name in zip(readable, names, strict=True)]
    return jobs, failed


def _run(
    job: _Job,
    target: _Target,
    settings: RecordSettings,
    codec: Codec,
    overwrite: bool,
    progress: Callable[[RecordProgress], None] | None,
    stop: threading.Event,
) -> IngestOutcome:
    if stop.is_set():
        error = IngestError(f"{job.spec}: stopped before it began; run the same command again")
        return IngestOutcome(source=str(job.spec), name=job.name, error=error)
    try:
        with open_source(job.spec, settings, should_stop=stop.is_set) as reader:
            recorded = record(
                reader,
                target.store(),
                name=job.name,
                source=job.source,
                settings=replace(settings, reader=reader.info.reader),
                codec=codec,
                overwrite=overwrite,
                progress=progress,
                stop=stop,
            )
            warning = _suspicion(reader.info, recorded.commit)
    except _FAILURES as error:
        return IngestOutcome(source=str(job.spec), name=job.name, error=_told(job.spec, error))
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


def _told(source: str | SourceSpec, error: Exception) -> IngestError:
    """What became of one source, as one line."""
    if isinstance(error, IngestError):
        return error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return VideoError(f"{source}: cannot be ingested ({reason}); check the file and its rights")
