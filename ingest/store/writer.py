"""The one writer of a recording: data first, then the commit record that speaks of it."""

import os
from dataclasses import replace
from types import TracebackType

from ingest.disk.durable import FileLock, clear_write_errors
from ingest.errors import StoreError
from ingest.frame import Frames
from ingest.store.layout import RELEASED_VERSION, StoreLayout
from ingest.store.protocols import ChunkFiles
from ingest.store.records import CommitRecord, Counters


class ChunkWriter:
    """A RecordingWriter over the chunks of any format; owns the recording's lock."""

    def __init__(
        self,
        layout: StoreLayout,
        name: str,
        commit: CommitRecord,
        files: ChunkFiles,
        lock: FileLock,
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
        """Let go of the pixels before frame `before`, as far as these are whole blocks.

        The commit record says so before they are deleted: no reader takes it for damage.
        """
        self._check_incomplete()
        start, stop = self._commit.released, before - before % self.block_length
        if start < stop <= self._commit.length:
            commit = replace(self._commit, released=stop, version=RELEASED_VERSION)
            with clear_write_errors(self._where):
                self._layout.write_commit(self._name, commit)
                self._commit = commit
                self._files.release(start, stop)
        return self._commit

    def close(self) -> None:
        """Let other writers in; what was not committed does not count."""
        self._lock.release()

    def __enter__(self) -> "ChunkWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, frames: Frames | None, counters: Counters, *, complete: bool) -> CommitRecord:
        self._check_incomplete()
        durable = self._commit.durable and self._layout.durable
        commit = replace(self._commit, complete=complete, counters=counters, durable=durable)
        with clear_write_errors(self._where):
            if frames is not None and len(frames):
                self._check(frames)
                self._files.write(frames, commit.length)
                commit = _extended(commit, frames)
            if complete:
                self._files.trim(commit.length)
                if not durable:
                    os.sync()  # once: what is complete is as safe as any
                    commit = replace(commit, durable=True)
            self._layout.write_commit(self._name, commit)
        self._commit = commit
        return commit

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
        length=commit.length + len(frames),
        first_pts_ns=int(frames.pts_ns[0]) if first is None else first,
        last_pts_ns=int(frames.pts_ns[-1]),
    )
