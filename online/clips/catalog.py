"""What a store offers to training and evaluation: its recordings, their clips, any frames."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int64

from ingest.errors import IngestError, NoAnswerError, NoSuchRecordingError, StoreError
from ingest.frame import Frames
from ingest.store.cache import ChunkCache
from ingest.store.protocols import RecordingReader, Store
from ingest.store.records import CommitRecord
from online.clips.clip import ClipConfig, ClipSpec, Cuts, cuts
from online.clips.cursor import Extent
from online.clips.holdout import DEFAULT_HOLDOUT, RecordingSummary, split
from online.clips.readers import OpenReaders
from online.clips.steps import STEP_NAMES, Steps, done, until_done
from setcon.checks import check_at_least, check_below

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

MILESTONE_FRAMES = 1000
"""How far apart, at least, planning notes how many clips there are so far."""
KNOWN_CUTS = 1024
"""Recordings, times the ways that trainers want them cut, whose milestones are kept."""
CACHE_BYTES = 256 << 20
"""Decoded chunks that all open readers keep together: what a shuffle mixes, so that a chunk which
two clips share is decoded once."""


@runtime_checkable
class FrameSource(Protocol):
    """Random access to recordings: a store on this machine, or a server's on another."""

    def recordings(self) -> list[RecordingSummary]:
        """What there is now, sorted by name."""
        ...

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length; `masks` asks for label maps where there are any.

        Raises ReleasedError: frames were deleted, as `capture --keep` asks for.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Milestone:
    """The last clip within the first `length` frames begins at `start`; `count` come before it."""

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
        check_at_least(0, holdout=holdout)
        check_below(1, holdout=holdout)
        self.store = store
        self.holdout = holdout
        self._glob = recordings
        self._readers = OpenReaders(store, ChunkCache(CACHE_BYTES))
        self._known: dict[str, CommitRecord] = {}
        """Of recordings that were looked at; a complete one is not looked at again."""
        self._breaks: dict[str, tuple[int, Int64[np.ndarray, " n"]]] = {}
        """Of complete recordings whose record does not list them, with their length."""
        self._summaries: dict[str, tuple[CommitRecord, RecordingSummary]] = {}
        self._milestones: dict[tuple[str, ClipConfig], list[_Milestone]] = {}
        self._left_out: dict[str, str] = {}

    @property
    def left_out(self) -> Mapping[str, str]:
        """The recordings that could not be read when they were asked about, and why."""
        return self._left_out

    def names(self, glob: str = "*") -> list[str]:
        """Recordings whose names match, sorted; one that was damaged from the first is left out."""
        return done(self.naming(glob))

    def naming(self, glob: str = "*") -> Steps[list[str]]:
        """The steps of `names`."""
        listed = self.store.recordings()
        names = [n for n in listed if fnmatchcase(n, self._glob) and fnmatchcase(n, glob)]
        new = [name for name in names if not self._is_known(name)]
        for number, (name, asked) in enumerate(self.store.for_each(self.store.commit, new)):
            indexes = len(self._summaries)
            yield from until_done(asked)
            self._tried(name, partial(self._look_at, asked))
            if len(self._summaries) > indexes or number % STEP_NAMES == STEP_NAMES - 1:
                yield 0
        return [name for name in names if self._is_known(name)]

    def _is_known(self, name: str) -> bool:
        return name in self._known and name not in self._left_out

    def has_any(self) -> bool:
        """Whether there is a recording to offer, found without looking at all of them."""
        return done(self._finding_any())

    def _finding_any(self) -> Steps[bool]:
        naming = self.naming()
        for step in naming:
            if any(map(self._is_known, self._known)):
                naming.close()
                break
            yield step
        return any(map(self._is_known, self._known))

    def commit(self, name: str) -> CommitRecord:
        """What is committed now.

        Raises IngestError: there is no such recording, or none that is offered, it is damaged, or
        it was replaced: no reader may see frames of both.
        """
        if not fnmatchcase(name, self._glob):
            raise self._not_offered(name)
        known, reader = self._known.get(name), self._readers.find(name)
        try:
            if reader is not None:
                commit = reader.refresh()
            elif known is not None and known.complete and self.store.is_remote:
                commit = known  # to look is a request; if it was replaced, reading it will tell
            else:
                commit = self.store.commit(name)
        except NoSuchRecordingError:
            raise self._not_offered(name) from None
        self._note(name, commit)
        return commit

    def _not_offered(self, name: str) -> NoSuchRecordingError:
        """Of recordings that are not offered an error says nothing."""
        return NoSuchRecordingError(f"{self.store.location}: no recording {name!r} is offered")

    def _note(self, name: str, commit: CommitRecord) -> None:
        known = self._known.get(name, commit)
        if known is not commit and known.identity != commit.identity:
            raise StoreError(
                f"{self.store.location}: recording {name!r} was replaced by another one while it "
                "was being read; restart the server, and begin a new run"
            )
        self._known[name] = commit

    def extent(self, name: str, *, follow: bool) -> Extent:
        """What is committed now; a recording that may be followed further stays open at its end.

        A complete one is not looked at again. Errors as in `commit`.
        """
        now = self._now(name)
        return Extent(now.length, now.complete or not follow, now.released)

    def identity(self, name: str) -> str:
        """`CommitRecord.identity`, of which the server's recordings never change theirs."""
        return self._known_of(name).identity

    def frame_bytes(self, name: str) -> int:
        """Of the pixels of one frame."""
        known = self._known_of(name)
        return known.height * known.width * 3

    def _known_of(self, name: str) -> CommitRecord:
        """What was committed when it was last looked at."""
        return self._known.get(name) or self.commit(name)

    def _now(self, name: str) -> CommitRecord:
        """What is committed now; a complete recording is not looked at again."""
        known = self._known.get(name)
        return known if known is not None and known.complete else self.commit(name)

    def _reader(self, name: str) -> RecordingReader:
        return self._readers.open(name, self._known_of(name))

    def recordings(self) -> list[RecordingSummary]:
        """What there is now and can be read, sorted by name."""
        return done(self.listing())

    def listing(self) -> Steps[list[RecordingSummary]]:
        """The steps of `recordings`."""
        found = []
        names = yield from self.naming()
        for number, name in enumerate(names):
            if (summary := self._tried(name, self._summary)) is not None:
                found.append(summary)
            if number % STEP_NAMES == STEP_NAMES - 1:
                yield 0
        return found

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length.

        Raises IndexError: frames outside the committed range; IngestError: there is no such
        recording, it is damaged, or it was replaced; ReleasedError if frames were deleted.
        """
        commit = self.commit(recording)
        if start < 0 or length < 1 or start + length > commit.length:
            raise IndexError(
                f"{self.store.location}: {recording} has frames 0..{commit.length}, "
                f"asked for {start}..{start + length}"
            )
        frames = self._reader(recording).read(start, start + length, masks=masks)
        self.commit(recording)  # raises if it was replaced meanwhile
        return frames

    def warm_up(self) -> None:
        """Read a frame, if there is one on this machine.

        The first that is decoded takes up to half a second of imports, during which others wait.
        """
        name = next(filter(self._is_known, self._known), None)
        if name is None or self.store.is_remote:
            return
        with suppress(IngestError, IndexError):  # whoever asks for it hears why
            self.fetch(name, self.commit(name).released, 1)

    def bring(
        self, recording: str, start: int, length: int, *, after: int = 0
    ) -> Future[None] | None:
        """Have storage that is far away send frames, to be fetched `after` so many other clips.

        Does not wait. None where too much is waited for already, unless it is needed now.
        """
        commit = self._known_of(recording)
        return self._readers.bring(recording, commit, start, start + length, after=after)

    def clips(self, name: str, config: ClipConfig, *, length: int, closed: bool) -> list[ClipSpec]:
        """Clips of the training part of a recording's first `length` frames.

        `closed` includes the short clip at the end; without it, the clips of a smaller
        `length` are the first clips of a larger one.
        """
        return self.cuts(name, config, length=length, closed=closed).of(name)

    def cuts(
        self, name: str, config: ClipConfig, *, length: int, closed: bool, start: int = 0
    ) -> Cuts:
        """The same as numbers, and only those that begin at `start` or after it; one does there."""
        now = self._now(name)
        parts = split(
            self._times(name, now, start, length),
            live=now.live,
            complete=False,  # only the training part matters here, and it is the same
            holdout=self.holdout,
            guard=config.overlap,
            start=start,
            first_pts_ns=now.first_pts_ns,
        )
        breaks = self._breaks_of(name, now, start)
        return cuts(breaks - start, parts.train, config, closed=closed).moved(start)

    def cuts_beyond(
        self,
        name: str,
        config: ClipConfig,
        *,
        base_length: int,
        base_closed: bool,
        length: int,
        closed: bool,
    ) -> tuple[int, Cuts]:
        """How many clips the first `base_length` frames have, and those that `length` adds.

        Cutting begins at the latest milestone, not at frame 0, so a recording without an end
        costs only what is new: clips of a shorter recording are the first ones of a longer one.
        """
        passed = self._milestones_of(name, config)
        latest = passed[bisect_right(passed, base_length, key=lambda stone: stone.length) - 1]
        before = self.cuts(name, config, length=base_length, closed=base_closed, start=latest.start)
        found = self.cuts(name, config, length=length, closed=closed, start=latest.start)
        count = latest.count + len(before)
        if not base_closed and len(before) and base_length >= passed[-1].length + MILESTONE_FRAMES:
            passed.append(_Milestone(base_length, count - 1, before.last_start))
        return count, found.after(len(before))

    def _milestones_of(self, name: str, config: ClipConfig) -> list[_Milestone]:
        """Those of one way to cut; the ones that were not asked for the longest are forgotten."""
        passed = self._milestones.pop((name, config), [_Milestone(0, 0, 0)])
        self._milestones[name, config] = passed
        if len(self._milestones) > KNOWN_CUTS:
            del self._milestones[next(iter(self._milestones))]
        return passed

    def close(self) -> None:
        """Close all files."""
        self._readers.close()

    def _summary(self, name: str) -> RecordingSummary:
        now = self.commit(name)
        known = self._summaries.get(name)
        if known is None or known[0] != now:
            known = self._summaries[name] = now, self._summed_up(name, now)
        return known[1]

    def _look_at(self, asked: Future[CommitRecord], name: str) -> CommitRecord:
        """Note a commit record, and read the index where what is in it will be needed."""
        record = asked.result()
        self._note(name, record)
        if record.breaks is None:
            self._summary(name)
        return self._known[name]

    def _breaks_of(self, name: str, now: CommitRecord, start: int = 0) -> Int64[np.ndarray, " n"]:
        """The committed frames from `start` on that do not continue their predecessor."""
        if now.breaks is not None:
            breaks = np.array(now.breaks, np.int64)
            return breaks[np.searchsorted(breaks, start) :]
        length, known = self._breaks.get(name, (-1, np.empty(0, np.int64)))
        if length != now.length:
            # a reader may see more than was committed then
            gap = self._reader(name).gap(start)[: now.length - start]
            known = start + np.flatnonzero(gap)
            if now.complete and not start:
                self._breaks[name] = now.length, known
            return known
        return known[np.searchsorted(known, start) :]

    def _times(
        self, name: str, now: CommitRecord, start: int, stop: int
    ) -> Int64[np.ndarray, " n"] | int:
        """Of frames start..stop; of files, which are not split by them, only how many there are."""
        return self._reader(name).pts_ns(start)[: stop - start] if now.live else stop - start

    def _summed_up(self, name: str, now: CommitRecord) -> RecordingSummary:
        parts = split(
            self._times(name, now, 0, now.length),
            live=now.live,
            complete=now.complete,
            holdout=self.holdout,
        ).without(now.released)
        return RecordingSummary(
            name=name,
            length=now.length,
            complete=now.complete,
            live=now.live,
            height=now.height,
            width=now.width,
            has_masks=now.has_masks,
            gaps=len(self._breaks_of(name, now)),
            train=parts.train,
            held_out=parts.held_out,
            released=now.released,
        )

    def _tried(self, name: str, ask: Callable[[str], Answer]) -> Answer | None:
        """What `ask` says of a recording; None, with a warning, if it cannot be read.

        Raises NoAnswerError: for what a passing fault left out, nobody would learn from it.
        """
        try:
            answer = ask(name)
        except NoAnswerError:
            raise
        except IngestError as error:
            if self._left_out.get(name) != str(error):
                self._left_out[name] = str(error)
                log.warning("left out: %s", error)
            return None
        self._left_out.pop(name, None)
        return answer
