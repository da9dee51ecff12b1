"""The one writer of a recording: data first, then the commit record that speaks of it."""

from dataclasses import replace

import numpy as np

from ingest.closing import Closing
from ingest.disk.durable import clear_write_errors
from ingest.errors import StoreError
from ingest.frame import Frames
from ingest.store.blobs import Lease
from ingest.store.layout import RELEASED_VERSION, StoreLayout
from ingest.store.protocols import ChunkFiles
from ingest.store.records import MAX_BREAKS, CommitRecord, Counters


class ChunkWriter(Closing):
    """A RecordingWriter over the chunks of any format; owns the recording's lock."""

    def __init__(
        self,
        layout: StoreLayout,
        name: str,
        commit: CommitRecord,
        files: ChunkFiles,
        lock: Lease,
    ) -> None:
        self._layout = layout
        self._name = name
        self._commit = commit
        self._files = files
        self._lock = lock
        self._where = layout.describe(name)

    @property
    def name(self) -> str:
        """Name of the recording."""
        return self._name

    @property
    def commit(self) -> CommitRecord:
        """The commit record on disk."""
        return self._commit

    @property
    def block_length(self) -> int:
        """How many frames every `append` takes."""
        return self._files.block_length(self._commit)

    def append(self, frames: Frames, counters: Counters) -> CommitRecord:
        """Write exactly `block_length` frames, then commit them."""
        if len(frames) != self.block_length:
            raise ValueError(f"append takes {self.block_length} frames, got {len(frames)}")
        return self._write(frames, counters, complete=False)

    def finish(self, tail: Frames | None, counters: Counters) -> CommitRecord:
        """Write the last, shorter run of frames, then commit the recording as complete."""
        if tail is not None and len(tail) > self.block_length:
            raise ValueError(f"a tail has up to {self.block_length} frames, got {len(tail)}")
        return self._write(tail, counters, complete=True)

    def release(self, before: int) -> CommitRecord:
        """Delete the pixels before frame `before`, as far as these are whole blocks.

        The commit record says so before they are deleted: no reader takes it for damage.
        """
        self._check_incomplete()
        start, stop = self._commit.released, before - before % self.block_length
        if start < stop <= self._commit.length:
            commit = replace(self._commit, released=stop, version=RELEASED_VERSION)
            with clear_write_errors(self._where):
                self._layout.write_commit(commit, self._lock)
                self._commit = commit
                self._files.release(start, stop, commit)
        return self._commit

    def discard_empty(self) -> None:
        """Delete the recording if nothing is committed; another writer cannot come in between."""
        if not self._commit.length and not self._commit.complete:
            self._layout.remove(self._name, self._lock)

    def close(self) -> None:
        """Let other writers in; what was not committed does not count."""
        self._lock.release()

    def _write(self, frames: Frames | None, counters: Counters, *, complete: bool) -> CommitRecord:
        """Three steps, whose order is what makes a killed writer harmless.

        1. The frames are on disk, after all that is committed: no reader looks there yet.
        2. At the end, the room after the last frame is given up, and what was written without
           waiting for the disk is synced.
        3. The commit record that speaks of it all replaces the previous one, and what other
           programs read follows it.

        Killed before 3, the writer that continues finds the old record, and writes the same places
        again.
        """
        self._check_incomplete()
        commit = replace(self._commit, complete=complete, counters=counters)
        with clear_write_errors(self._where):
            if frames is not None and len(frames):
                self._check(frames)
                self._files.write(frames, commit.length, commit)
                commit = _extended(commit, frames)
            if complete:
                self._files.trim(commit)
            commit = replace(commit, durable=self._is_durable(complete=complete))
            self._layout.write_commit(commit, self._lock)
            self._commit = commit
            self._files.announce(commit)
        return commit

    def _is_durable(self, *, complete: bool) -> bool:
        """Whether all frames so far are safe from a power cut; a complete recording always is."""
        blobs = self._layout.blobs
        durable = self._commit.durable and blobs.durable
        if complete and not durable:
            blobs.sync()  # once, instead of at each commit
        return durable or complete

    def _check_incomplete(self) -> None:
        if self._commit.complete:
            raise StoreError(f"{self._where}: it is complete; use --overwrite to replace it")

    def _check(self, frames: Frames) -> None:
        expected = (self._commit.height, self._commit.width)
        if frames.images.shape[1:3] != expected:
            raise ValueError(f"frames are {frames.images.shape[1:3]}, the recording {expected}")
        if (frames.masks is not None) != self._commit.has_masks:
            raise ValueError(f"frames with masks: {frames.masks is not None}, not as the recording")
        if (frames.captured_ns is not None) != self._commit.live:
            raise ValueError("captured_ns belongs to live recordings, and to every frame of them")


def _extended(commit: CommitRecord, frames: Frames) -> CommitRecord:
    first = commit.first_pts_ns
    return replace(
        commit,
        breaks=_breaks(commit, frames),
        length=commit.length + len(frames),
        first_pts_ns=int(frames.pts_ns[0]) if first is None else first,
        last_pts_ns=int(frames.pts_ns[-1]),
    )


def _breaks(commit: CommitRecord, frames: Frames) -> tuple[int, ...] | None:
    """Those so far; once they were not listed, they never are again."""
    before = commit.breaks if commit.length else ()
    if before is None:
        return None
    breaks = (*before, *(commit.length + np.flatnonzero(frames.gap)).tolist())
    return breaks if len(breaks) <= MAX_BREAKS else None
