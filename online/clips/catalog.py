"""What a store offers to training and evaluation: its recordings, and which parts are held out.

    file      [############ train ############|== held out ==]      the last share of its frames
    growing   [######## train ########|.. not yet assigned ..]      the same share of what there is
    camera    [#### 4 min ####|= 1 min =|#### 4 min ####|= ...      every fifth minute

A frame is never reassigned. While a file is still being ingested its border can only move to the
right, so what lies beyond the border belongs to nobody until the recording is complete.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int64

from ingest.errors import IngestError, StoreError
from ingest.frame import Frames
from ingest.store.cache import ChunkCache
from ingest.store.protocols import RecordingReader, Store
from ingest.store.records import CommitRecord
from online.clips.clip import ClipConfig, ClipSpec, Interval, cut

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

MINUTE_NS = 60_000_000_000
BLOCK_MINUTES = 5
"""Of so many minutes of a camera's recording, the last one is held out."""
DEFAULT_HOLDOUT = 0.2
"""Share of each recording that is never trained on, where nothing else is said."""
MARK_FRAMES = 1000
"""How far apart, at least, planning notes how many clips there are so far."""
OPEN_READERS = 16
CACHE_BYTES = 256 << 20
"""Decoded chunks that all open readers keep together: what a shuffle mixes, so that a chunk which
two clips share is decoded once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingSummary:
    """One recording as a trainer sees it."""

    name: str
    length: int
    """Frames committed."""
    complete: bool
    live: bool
    height: int
    width: int
    has_masks: bool
    gaps: int
    """Frames that do not continue their predecessor, the first one included."""
    train: tuple[Interval, ...]
    held_out: tuple[Interval, ...]
    released: int = 0
    """Frames at the beginning that were let go of; they are in neither part."""

    @property
    def kept(self) -> Interval:
        """All frames that can be fetched."""
        return Interval(self.released, self.length)


@runtime_checkable
class FrameSource(Protocol):
    """Random access to recordings: a store on this machine, or a server's on another."""

    def recordings(self) -> list[RecordingSummary]:
        """What there is now, sorted by name."""
        ...

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length; `masks` asks for label maps where there are any.

        Raises ReleasedError: frames were let go of, as `capture --keep` says.
        """
        ...


@dataclass(frozen=True, slots=True)
class Split:
    """Which frames of a recording are trained on and which are held out."""

    train: tuple[Interval, ...]
    held_out: tuple[Interval, ...]


def split(
    pts_ns: Int64[np.ndarray, " n"],
    *,
    live: bool,
    complete: bool,
    holdout: float,
    guard: int = 0,
    start: int = 0,
    first_pts_ns: int | None = None,
) -> Split:
    """Divide a recording's first n frames, or those from `start` on, and count from there.

    Args:
        pts_ns: their times.
        live: whether it comes from a camera, which has no end to take a share of.
        complete: whether the n frames are all there will be.
        holdout: share of the frames that is held out; 0 holds nothing out.
        guard: frames left out of training wherever a camera's held-out minute begins or ends, or
            might begin next.
        start: a frame that is trained on.
        first_pts_ns: time of the recording's first frame, where that is not the first one here.
    """
    if live and holdout:
        began_ns = pts_ns[:1] if first_pts_ns is None else first_pts_ns
        return _split_by_time(pts_ns - began_ns, guard)
    n = start + len(pts_ns)
    border = n - int(n * holdout + 1e-9)  # 0.2 * 15 is a hair below 3 in some orders of rounding
    held_out = [Interval(border - start, n - start)] if complete else []
    return Split(_nonempty([Interval(0, border - start)]), _nonempty(held_out))


def _split_by_time(since_ns: Int64[np.ndarray, " n"], guard: int) -> Split:
    """Split frames by their time since the first of all; those here begin with that, or within a
    stretch of training."""
    n = len(since_ns)
    minute = since_ns // MINUTE_NS
    held = minute % BLOCK_MINUTES == BLOCK_MINUTES - 1
    edges = [0, *(np.flatnonzero(np.diff(held)) + 1).tolist(), n]
    train, held_out = [], []
    for start, stop in pairwise(edges):
        if n and held[start]:
            held_out.append(Interval(start, stop))
        else:
            train.append(Interval(start + guard if start else 0, max(start, stop - guard)))
    return Split(_nonempty(train), _nonempty(held_out))


def _kept(intervals: Sequence[Interval], released: int) -> tuple[Interval, ...]:
    """What is still there of intervals."""
    return _nonempty([Interval(max(i.start, released), i.stop) for i in intervals])


def _nonempty(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    return tuple(i for i in intervals if i.stop > i.start)


@dataclass(frozen=True, slots=True)
class _Mark:
    """Of the first `length` frames, the last clip begins at `start`; `count` come before."""

    length: int
    count: int
    start: int


class StoreCatalog:
    """The recordings of one store, its held-out parts decided by `holdout`.

    Not for use by several threads at once.
    """

    def __init__(
        self, store: Store, *, holdout: float = DEFAULT_HOLDOUT, recordings: str = "*"
    ) -> None:
        if not 0 <= holdout < 1:
            raise ValueError(f"holdout is {holdout}, it must lie in 0..1, 1 not included")
        self.store = store
        self.holdout = holdout
        self._glob = recordings
        self._readers: dict[str, RecordingReader] = {}
        self._cache = ChunkCache(CACHE_BYTES)
        self._identities: dict[str, str] = {}
        self._marks: dict[tuple[str, ClipConfig], list[_Mark]] = {}
        self._left_out: dict[str, str] = {}

    @property
    def left_out(self) -> Mapping[str, str]:
        """The recordings that could not be read when they were asked about, and why."""
        return self._left_out

    def names(self, glob: str = "*") -> list[str]:
        """Recordings whose names match, sorted; one that was damaged from the first is left out."""
        return [
            name
            for name in self.store.recordings()
            if fnmatchcase(name, self._glob)
            and fnmatchcase(name, glob)
            and (name in self._identities or self._tried(name, self._summary) is not None)
        ]

    def commit(self, name: str) -> CommitRecord:
        """What is committed now.

        Raises IngestError: there is no such recording, it is damaged, or it is no longer the one it
        was: nobody shall see frames of both.
        """
        commit = self._reader(name).refresh()
        if self._identities.setdefault(name, commit.identity) != commit.identity:
            raise StoreError(
                f"{self.store.path}: recording {name!r} was replaced by another one while it was "
                "being read; restart the server, and begin a new run"
            )
        return commit

    def recordings(self) -> list[RecordingSummary]:
        """What there is now and can be read, sorted by name."""
        tried = (self._tried(name, self._summary) for name in self.names())
        return [summary for summary in tried if summary is not None]

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length.

        Raises IndexError: frames outside the committed range; IngestError: there is no such
        recording, it is damaged, or it was replaced; ReleasedError if frames were let go of.
        """
        commit = self.commit(recording)
        if start < 0 or length < 1 or start + length > commit.length:
            raise IndexError(
                f"{self.store.path}: {recording} has frames 0..{commit.length}, "
                f"asked for {start}..{start + length}"
            )
        frames = self._reader(recording).read(start, start + length, masks=masks)
        self.commit(recording)  # raises if it was replaced meanwhile
        return frames

    def clips(self, name: str, config: ClipConfig, *, length: int, closed: bool) -> list[ClipSpec]:
        """Clips of the training part of a recording's first `length` frames.

        `closed` includes the short clip at the end; without it, the clips of a smaller
        `length` are the first clips of a larger one.
        """
        return self._clips_from(name, config, 0, length, closed=closed)

    def clips_beyond(
        self,
        name: str,
        config: ClipConfig,
        *,
        base_length: int,
        base_closed: bool,
        length: int,
        closed: bool,
    ) -> tuple[int, list[ClipSpec]]:
        """How many clips the first `base_length` frames have, and those that `length` adds.

        Of a recording without an end only what is new is looked at: clips of what has been looked
        at before are the first ones of all that it will have.
        """
        marks = self._marks.setdefault((name, config), [_Mark(0, 0, 0)])
        mark = marks[bisect_right(marks, base_length, key=lambda mark: mark.length) - 1]
        before = self._clips_from(name, config, mark.start, base_length, closed=base_closed)
        clips = self._clips_from(name, config, mark.start, length, closed=closed)
        count = mark.count + len(before)
        if not base_closed and before and base_length >= marks[-1].length + MARK_FRAMES:
            marks.append(_Mark(base_length, count - 1, before[-1].start))
        return count, clips[len(before) :]

    def _clips_from(
        self, name: str, config: ClipConfig, start: int, length: int, *, closed: bool
    ) -> list[ClipSpec]:
        """Clips of the training part of the first `length` frames that begin at `start`,
        where a clip begins, or behind it."""
        commit, reader = self.commit(name), self._reader(name)
        parts = split(
            reader.pts_ns(start)[: length - start],
            live=commit.live,
            complete=False,  # only the training part matters here, and it is the same
            holdout=self.holdout,
            guard=config.overlap,
            start=start,
            first_pts_ns=commit.first_pts_ns,
        )
        clips = cut(name, reader.gap(start)[: length - start], parts.train, config, closed=closed)
        return [replace(clip, start=clip.start + start) for clip in clips]

    def close(self) -> None:
        """Close all files."""
        while self._readers:
            self._readers.popitem()[1].close()

    def _summary(self, name: str) -> RecordingSummary:
        commit, reader = self.commit(name), self._reader(name)
        gap = reader.gap()
        parts = split(
            reader.pts_ns(), live=commit.live, complete=commit.complete, holdout=self.holdout
        )
        return RecordingSummary(
            name=name,
            length=commit.length,
            complete=commit.complete,
            live=commit.live,
            height=commit.height,
            width=commit.width,
            has_masks=commit.has_masks,
            gaps=int(gap.sum()),
            train=_kept(parts.train, commit.released),
            held_out=_kept(parts.held_out, commit.released),
            released=commit.released,
        )

    def _tried(self, name: str, ask: Callable[[str], Answer]) -> Answer | None:
        """What `ask` says of a recording; None, with a warning, if it cannot be read."""
        try:
            answer = ask(name)
        except IngestError as error:
            if self._left_out.get(name) != str(error):
                self._left_out[name] = str(error)
                log.warning("left out: %s", error)
            return None
        self._left_out.pop(name, None)
        return answer

    def _reader(self, name: str) -> RecordingReader:
        """The open reader of a recording; the one used longest ago is closed for a new one."""
        reader = self._readers.pop(name, None)
        if reader is None:
            while len(self._readers) >= OPEN_READERS:
                self._readers.pop(next(iter(self._readers))).close()
            reader = self.store.reader(name, cache=self._cache)
        self._readers[name] = reader
        return reader
