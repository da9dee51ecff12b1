"""Many sources into one store: one recording each, several at a time, failures last."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ingest.disk.threads import available_cores
from ingest.errors import IngestError, NoAnswerError, VideoError
from ingest.fleet import Fleet
from ingest.job import FAILURES, IngestOutcome, Job, Order, Target, failure, run_job
from ingest.recorder import RecordProgress
from ingest.store.protocols import Store
from ingest.store.records import Codec, RecordSettings, Source, StoreFormat
from ingest.video.identity import fingerprint, name_recordings
from ingest.video.sources import SourceSpec, expand, with_masks, with_track

_MOST_WORKERS = 4


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
    fleet: Fleet | None = None,
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
    once, are more than one; by default there are as many as cores, up to four. With a `fleet`,
    Ray's workers record them, and by default as many at once as it has cores. Where no source
    opens, no store is made. Raises StoreError where the location is not a store, and IngestError
    where there is no such fleet.
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
    order = Order(
        store=store_location,
        settings=settings,
        store_format=store_format,
        codec=codec,
        overwrite=overwrite,
        durable=durable,
    )
    target = Target(order)
    jobs, unreadable = _plan(specs, target.there())
    one_each = {job.name: job for job in jobs}  # copies of one file share a name
    tell = progress or (lambda _: None)
    if fleet is not None:
        done = fleet.run(list(one_each.values()), order, workers=workers, tell=tell, stop=stop)
    else:
        done = _run_here(one_each, order, target, workers=workers, tell=tell, stop=stop)
    outcomes = [replace(done[job.name], source=str(job.spec)) for job in jobs]
    return [*outcomes, *unreadable, *failed]


def _run_here(
    jobs: dict[str, Job],
    order: Order,
    target: Target,
    *,
    workers: int | None,
    tell: Callable[[RecordProgress], None],
    stop: threading.Event,
) -> dict[str, IngestOutcome]:
    def run(job: Job) -> IngestOutcome:
        return run_job(job, order, target, tell=tell, stop=stop)

    with ThreadPoolExecutor(max_workers=workers or _good_workers(len(jobs))) as pool:
        try:
            return dict(zip(jobs, pool.map(run, jobs.values()), strict=True))
        except BaseException:  # Ctrl-C: the workers end at their next block
            stop.set()
            raise


def _good_workers(sources: int) -> int:
    """While one source is opened or waits for the disk, another is decoded, on all cores."""
    return max(1, min(sources, available_cores(), _MOST_WORKERS))


def recordings_by_size(store: Store) -> dict[tuple[int, int], list[str]]:
    """Names by width and height of their frames; a recording with a damaged record is left out."""

    found: dict[tuple[int, int], list[str]] = {}
    for name, asked in store.for_each(store.commit, store.recordings()):
        try:
            commit = asked.result()
        except NoAnswerError:
            raise
        except IngestError:
            continue
        found.setdefault((commit.width, commit.height), []).append(name)
    return found


def _expand_all(sources: Sequence[str]) -> tuple[list[SourceSpec], list[IngestOutcome]]:
    """All sources, each once, and the words that name none."""
    specs: dict[tuple[str | Path, str], SourceSpec] = {}
    failed = []
    for source in sources:
        try:
            for spec in expand(source):
                specs.setdefault((spec.address or spec.path.resolve(), spec.part), spec)
        except FAILURES as error:
            failed.append(IngestOutcome(source=source, error=failure(source, error)))
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
) -> tuple[list[Job], list[IngestOutcome]]:
    """A fingerprint and a name for every source that can be read."""
    readable: list[tuple[SourceSpec, Source]] = []
    failed = []
    for spec in specs:
        try:
            readable.append((spec, fingerprint(spec)))
        except FAILURES as error:
            failed.append(IngestOutcome(source=str(spec), error=failure(spec, error)))
    names = name_recordings([source for _, source in readable], store)
    jobs = [Job(spec, source, name) for (spec, source), name in zip(readable, names, strict=True)]
    return jobs, failed
