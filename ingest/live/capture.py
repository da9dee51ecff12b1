"""From a camera into a store, live: what was captured can be read half a second later.

Camera, its own thread ──▶ backlog ──▶ chunks of half a second ──▶ compress, write, commit
"""

import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ingest.errors import NotAStoreError, RecordingLockedError
from ingest.live.backlog import Taken
from ingest.live.continued import Continuation, interrupted
from ingest.open import open_or_create_store
from ingest.store.blobs import is_address
from ingest.store.protocols import RecordingWriter, Store
from ingest.store.records import Codec, CommitRecord, RecordSettings, Source
from setcon.checks import check_at_least

_CHUNK_SECONDS = 0.5
_UNKNOWN_FPS = 30.0
_LOCKED_SECONDS = 2.0
_LOCKED_POLL_SECONDS = 0.05
LEAST_KEPT_SECONDS = 600.0
"""The least of a camera that may be kept: two of its ten minutes are held out."""
RELEASE_SECONDS = 60.0
"""How much is released at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """How far a capture has come, or how it ended."""

    name: str
    """Name of the recording."""
    commit: CommitRecord
    delay_seconds: float
    """Longest time from the arrival of a frame to its commit, of the latest chunk."""
    reconnects: int
    """How often the camera was lost and has come back."""

    @property
    def fps(self) -> float:
        """Frames stored per second of footage."""
        return (self.commit.length - 1) / max(1e-9, self.commit.duration_seconds)


@runtime_checkable
class Named(Protocol):
    """Where frames come from; as text it is what people call it."""

    def recording_name(self, now: datetime) -> str:
        """A name for what is captured from `now` on."""
        ...


@runtime_checkable
class LiveSource(Protocol):
    """What comes by itself and does not wait: a `Camera`, or frames that a program pushes."""

    reconnects: int
    began_at: float

    @property
    def device(self) -> Named: ...  # noqa: D102
    @property
    def settings(self) -> RecordSettings: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def fps(self) -> float | None: ...  # noqa: D102

    def take(self, count: int) -> Taken | None:
        """The `count` oldest frames, or after `stop` what is left; None if they are to come yet."""
        ...

    def stop(self) -> None:
        """Take no more frames; those that wait can still be taken."""
        ...


def open_live_store(location: str | Path) -> Store:
    """Open a store for captures, or make one; NotAStoreError where it cannot take them."""
    if isinstance(location, str) and is_address(location):
        raise NotAStoreError(
            f"{location}: captures are kept in local folders; capture into one, and copy it with "
            "`setcon publish`"
        )
    store = open_or_create_store(location)
    if store.format != "zarr":
        raise NotAStoreError(
            f"{location}: a store of format {store.format}, which closes its files too seldom for "
            "a camera; name another path"
        )
    return store


def capture(
    camera: LiveSource,
    store: Store,
    *,
    name: str | None = None,
    seconds: float | None = None,
    keep_seconds: float | None = None,
    codec: Codec = "zstd",
    progress: Callable[[Captured], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Captured:
    """Record a camera that has been entered, until `seconds` are over or `should_stop()`.

    `name` must be new to the store, or that of a capture of this device that was cut off, which
    goes on after a gap; by default it is made of the device and the time. With `keep_seconds` only
    the last so many stay on disk, and up to a minute more. `codec` is what compresses the frames.
    `progress` is called after every commit. Raises StoreError; what was committed stays.
    """
    kept = None if keep_seconds is None else _Kept(keep_seconds)
    name = name or camera.device.recording_name(datetime.now(UTC))
    before = interrupted(
        store, name, path=str(camera.device), settings=camera.settings, codec=codec
    )
    ends_at = math.inf if seconds is None else camera.began_at + seconds
    delay_seconds = 0.0
    with _writer(camera, store, name, codec, before) as writer:
        continuation = Continuation(store, name, writer.commit)
        if kept is not None and writer.commit.length:
            kept.go_on(store, name, writer.commit)
        while True:
            if should_stop() or time.monotonic() >= ends_at:
                camera.stop()
            taken = camera.take(writer.block_length)
            if taken is None:
                continue
            taken = continuation.laid(taken)
            _write(writer, taken, kept)
            if taken.frames is not None and taken.frames.captured_ns is not None:
                delay_seconds = time.time() - int(taken.frames.captured_ns[0]) / 1e9
            captured = Captured(
                name=name,
                commit=writer.commit,
                delay_seconds=delay_seconds,
                reconnects=camera.reconnects,
            )
            if progress is not None:
                progress(captured)
            if taken.last:
                return captured


def _write(writer: RecordingWriter, taken: Taken, kept: "_Kept | None") -> None:
    """Commit what was taken from the camera, and release what is no longer to be kept."""
    if taken.last or taken.frames is None:
        writer.finish(taken.frames, taken.counters)
        return
    writer.append(taken.frames, taken.counters)
    if kept is not None and (before := kept.begins_at(writer.commit)) is not None:
        writer.release(before)


class _Kept:
    """Finds, commit by commit, the first frame of a recording to keep."""

    def __init__(self, seconds: float) -> None:
        check_at_least(LEAST_KEPT_SECONDS, keep_seconds=seconds)
        self._ns = round(seconds * 1e9)
        self._step_ns = round(RELEASE_SECONDS * 1e9)
        self._marks: deque[tuple[int, int]] = deque()
        """Time and number of frames, a step apart and the earliest first."""

    def go_on(self, store: Store, name: str, commit: CommitRecord) -> None:
        """Find the frames that are there already, which get old as the new ones do."""
        with store.reader(name) as reader:
            times = reader.pts_ns(commit.released)
        at = 0
        while at < len(times):
            self._marks.append((int(times[at]), commit.released + at + 1))
            at = int(np.searchsorted(times, times[at] + self._step_ns))

    def begins_at(self, commit: CommitRecord) -> int | None:
        """The first frame to keep; None while it stays the same."""
        assert commit.last_pts_ns is not None  # something was committed
        now = commit.last_pts_ns
        if not self._marks or now - self._marks[-1][0] >= self._step_ns:
            self._marks.append((now, commit.length))
        first = None
        while self._marks[0][0] < now - self._ns:
            first = self._marks.popleft()[1]
        return first


def _writer(
    camera: LiveSource, store: Store, name: str, codec: Codec, before: CommitRecord | None
) -> RecordingWriter:
    """Open the recording, also while another program trims it, which takes a moment."""
    new = Source(path=str(camera.device), digest=secrets.token_hex(32))
    gives_up_at = time.monotonic() + _LOCKED_SECONDS
    while True:
        try:
            return store.writer(
                name,
                source=new if before is None else before.source,
                settings=camera.settings,
                height=camera.height,
                width=camera.width,
                live=True,
                max_chunk_length=max(1, int((camera.fps or _UNKNOWN_FPS) * _CHUNK_SECONDS)),
                codec=codec,
            )
        except RecordingLockedError:
            if time.monotonic() >= gives_up_at:
                raise
            time.sleep(_LOCKED_POLL_SECONDS)
