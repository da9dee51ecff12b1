"""Recording a camera on into a recording that was interrupted: a new part, after a gap."""

from dataclasses import replace

from ingest.errors import RecordingExistsError
from ingest.live.backlog import Taken
from ingest.store.protocols import Store
from ingest.store.records import Codec, CommitRecord, RecordSettings

_LEAST_STEP_NS = 1_000_000


def interrupted(
    store: Store, name: str, *, path: str, settings: RecordSettings, codec: Codec
) -> CommitRecord | None:
    """The record of a capture that was cut off and can go on, None where there is none so far.

    Raises RecordingExistsError for a recording that is complete, or was made otherwise.
    """
    if name not in store.recordings():
        return None
    commit = store.commit(name)
    if commit.complete:
        raise RecordingExistsError(
            f"{store.location}: there is a recording {name!r} already; give another name"
        )
    if not commit.live or (
        (commit.source.path, commit.settings, commit.codec) != (path, settings, codec)
    ):
        raise RecordingExistsError(
            f"{store.location}: there is an unfinished recording {name!r} already, of "
            f"{commit.source.path}, size {commit.settings.size}, codec {commit.codec}; give "
            "another name, or the same device, size, fps and codec to go on"
        )
    return commit


class Continuation:
    """Lays what is captured now after what was, by the wall clock."""

    def __init__(self, store: Store, name: str, commit: CommitRecord) -> None:
        self._counted = commit.counters
        self._last_pts_ns = self._last_captured_ns = None
        self._shift_ns: int | None = None
        if commit.length:
            with store.reader(name) as reader:
                last = reader.read(commit.length - 1, commit.length)
            assert last.captured_ns is not None  # it is live
            self._last_pts_ns = int(last.pts_ns[0])
            self._last_captured_ns = int(last.captured_ns[0])

    def laid(self, taken: Taken) -> Taken:
        """The same frames with times after those that are there, and all counters together."""
        frames = taken.frames
        if frames is not None and self._last_pts_ns is not None:
            if self._shift_ns is None:
                assert frames.captured_ns is not None
                assert self._last_captured_ns is not None
                passed_ns = int(frames.captured_ns[0]) - self._last_captured_ns
                starts_ns = self._last_pts_ns + max(_LEAST_STEP_NS, passed_ns)
                self._shift_ns = starts_ns - int(frames.pts_ns[0])
            frames = replace(frames, pts_ns=frames.pts_ns + self._shift_ns)
        return Taken(frames, self._counted + taken.counters, taken.last)
