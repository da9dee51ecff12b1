"""From a reader into a store: decode on one thread, compress and write on another.

decode + scale ──▶ blocks of whole chunks ──▶ [bounded queue] ──▶ compress, write, commit

What was cut off continues: the last committed chunk is decoded again and compared, so that the
result is bit-identical to a recording made in one go.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from ingest.errors import RecordingExistsError, SourceStopped, StoreError, VideoError
from ingest.frame import Frame, Frames
from ingest.store.protocols import RecordingWriter, Store
from ingest.store.records import Codec, CommitRecord, Counters, RecordSettings, Source
from ingest.video.reader import VideoReader

log = logging.getLogger(__name__)

_QUEUED_BLOCKS = 2
_POLL_SECONDS = 0.1

Status = Literal["recorded", "resumed", "already complete", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordProgress:
    """How far one recording has come."""

    name: str
    frames: int
    """Frames of the recording committed so far, by this run or an earlier one."""
    expected_frames: int | None
    """How many there will be, if the source's header is right."""
    frames_this_run: int
    seconds: float
    """Time since this run began to decode."""
    footage_seconds: float
    """Footage that this run has committed, in its own time."""

    @property
    def fps(self) -> float:
        """Frames committed per second."""
        return self.frames_this_run / self.seconds if self.seconds else 0.0

    @property
    def times_real_time(self) -> float:
        """How much faster than the footage plays."""
        return self.footage_seconds / self.seconds if self.seconds else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Time still needed, None where it is not known."""
        if self.expected_frames is None or not self.fps:
            return None
        return max(0, self.expected_frames - self.frames) / self.fps


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of one recording."""

    name: str
    status: Status
    commit: CommitRecord
    frames_this_run: int
    seconds: float
    restarted: bool = False
    """Whether continuing meant decoding from the start, because seeking gave other frames."""


@dataclass(frozen=True, slots=True)
class _Block:
    frames: Frames | None
    counters: Counters
    last: bool


def record(
    reader: VideoReader,
    store: Store,
    *,
    name: str,
    source: Source,
    settings: RecordSettings,
    codec: Codec = "zstd",
    overwrite: bool = False,
    progress: Callable[[RecordProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> Recorded:
    """Store all frames of a reader as one recording, or those that are still missing.

    `progress` is called after every commit. Setting `stop` ends it early with what is committed.
    Raises StoreError and VideoError; what was committed stays, and calling again continues.
    """
    with store.writer(
        name,
        source=source,
        settings=settings,
        height=reader.info.height,
        width=reader.info.width,
        has_masks=reader.info.has_masks,
        codec=codec,
        overwrite=overwrite,
    ) as writer:
        before, begun, stop = writer.commit, time.monotonic(), stop or threading.Event()

        def outcome(status: Status, *, restarted: bool = False) -> Recorded:
            return Recorded(
                name=name,
                status=status,
                commit=writer.commit,
                frames_this_run=writer.commit.length - before.length,
                seconds=time.monotonic() - begun,
                restarted=restarted,
            )

        if before.complete:
            return outcome("already complete")
        try:
            start = _begin(reader, store, writer, stop)
        except SourceStopped:
            return outcome("stopped")
        announce = _announcer(reader, writer, progress, begun)
        try:
            is_whole = _pump(start, reader, writer, announce, stop)
        except StoreError:
            raise
        except Exception:  # whatever a source fails with
            writer.discard_empty()
            raise
        if not is_whole:
            return outcome("stopped", restarted=start.restarted)
        return outcome("resumed" if before.length else "recorded", restarted=start.restarted)


@dataclass(frozen=True, slots=True)
class _Start:
    """Where to go on: the frames after the last committed one, and what was counted before."""

    frames: Iterator[Frame]
    counted: Counters
    restarted: bool = False


def _begin(
    reader: VideoReader, store: Store, writer: RecordingWriter, stop: threading.Event
) -> _Start:
    """Position the reader after the last committed frame, whose chunk must decode to the same."""
    length = writer.commit.length
    if not length:
        return _Start(reader.frames(), Counters())
    with store.reader(writer.name) as recording:
        masks = writer.commit.has_masks
        last = recording.read(length - writer.commit.chunk_length, length, masks=masks)
    frames = reader.frames(from_pts_ns=int(last.pts_ns[0]))
    if _comes_out_the_same(frames, last):
        return _Start(frames, writer.commit.counters - reader.counters)
    log.warning(
        "%s: seeking gives other frames than were stored; decoding from the start", writer.name
    )
    frames = reader.frames()
    skipped = 0
    for _ in islice(frames, length - len(last)):
        if stop.is_set():
            raise SourceStopped(reader.info.name)
        skipped += 1
    if skipped < length - len(last) or not _comes_out_the_same(frames, last):
        raise RecordingExistsError(
            f"{store.location}: recording {writer.name!r}: {reader.info.name} no longer decodes to "
            f"the {length} frames that are stored; use --overwrite to record it again"
        )
    return _Start(frames, Counters(), restarted=True)


def _comes_out_the_same(frames: Iterator[Frame], stored: Frames) -> bool:
    """Compare the next frames with stored ones; whether the first is a gap depends on seeking."""
    again = list(islice(frames, len(stored)))
    if len(again) < len(stored):
        return False
    decoded = Frames.stack(again)
    return (
        np.array_equal(decoded.pts_ns, stored.pts_ns)
        and np.array_equal(decoded.gap[1:], stored.gap[1:])
        and np.array_equal(decoded.images, stored.images)
        and _equal_masks(decoded.masks, stored.masks)
    )


def _equal_masks(decoded: np.ndarray | None, stored: np.ndarray | None) -> bool:
    if decoded is None or stored is None:
        return decoded is stored
    return np.array_equal(decoded, stored)


def _announcer(
    reader: VideoReader,
    writer: RecordingWriter,
    progress: Callable[[RecordProgress], None] | None,
    begun: float,
) -> Callable[[], None]:
    before = writer.commit

    def announce() -> None:
        commit = writer.commit
        if progress is None or commit.last_pts_ns is None or commit.first_pts_ns is None:
            return
        since = commit.first_pts_ns if before.last_pts_ns is None else before.last_pts_ns
        progress(
            RecordProgress(
                name=writer.name,
                frames=commit.length,
                expected_frames=commit.length if commit.complete else reader.info.expected_frames,
                frames_this_run=commit.length - before.length,
                seconds=time.monotonic() - begun,
                footage_seconds=(commit.last_pts_ns - since) / 1e9,
            )
        )

    return announce


def _pump(
    start: _Start,
    reader: VideoReader,
    writer: RecordingWriter,
    announce: Callable[[], None],
    stop: threading.Event,
) -> bool:
    """Write what another thread decodes; whether the source came to its end."""
    blocks: queue.Queue[_Block | BaseException] = queue.Queue(_QUEUED_BLOCKS)
    halt = threading.Event()
    decoder = threading.Thread(
        target=_decode,
        args=(start, reader, writer.block_length, blocks, halt),
        name=f"decode {writer.name}",
    )
    decoder.start()
    try:
        while not stop.is_set():
            try:
                block = blocks.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(block, SourceStopped):
                return False
            if isinstance(block, BaseException):
                raise block
            _write(block, reader, writer)
            announce()
            if block.last:
                return True
        return False
    finally:
        halt.set()
        decoder.join()


def _write(block: _Block, reader: VideoReader, writer: RecordingWriter) -> None:
    if not block.last and block.frames is not None:
        writer.append(block.frames, block.counters)
    elif block.frames is None and not writer.commit.length:
        raise VideoError(f"{reader.info.name}: no frames in it; check the source")
    else:
        writer.finish(block.frames, block.counters)


def _decode(
    start: _Start,
    reader: VideoReader,
    block_length: int,
    blocks: "queue.Queue[_Block | BaseException]",
    halt: threading.Event,
) -> None:
    """Hand on blocks of frames, then the end or the error; waits while the queue is full."""
    try:
        while not halt.is_set():
            frames = list(islice(start.frames, block_length))
            last = len(frames) < block_length
            stacked = Frames.stack(frames) if frames else None
            block = _Block(stacked, start.counted + reader.counters, last)
            if not _put(blocks, block, halt) or last:
                return
    except BaseException as error:  # it belongs to the thread that waits for the block
        _put(blocks, error, halt)


def _put(
    blocks: "queue.Queue[_Block | BaseException]",
    block: _Block | BaseException,
    halt: threading.Event,
) -> bool:
    while not halt.is_set():
        try:
            blocks.put(block, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False
