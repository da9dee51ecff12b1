"""Several servers as one source of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from ingest.frame import Frames
from online.clips.catalog import FrameSource
from online.clips.holdout import RecordingSummary


class JoinedSource:
    """Several servers as one source; with more than one, a recording is called `index:name`."""

    def __init__(self, sources: Sequence[FrameSource], *, recordings: str = "*") -> None:
        self.sources = sources
        self._glob = recordings

    def recordings(self) -> list[RecordingSummary]:
        """What there is now, server by server."""
        return [
            replace(summary, name=self._joined_name(index, summary.name))
            for index, source in enumerate(self.sources)
            for summary in source.recordings()
            if fnmatchcase(summary.name, self._glob)
        ]

    def fetch(self, recording: str, start: int, length: int, *, masks: bool = False) -> Frames:
        """Frames start..start+length from the server that has them."""
        if len(self.sources) == 1:
            return self.sources[0].fetch(recording, start, length, masks=masks)
        index, _, name = recording.partition(":")
        return self.sources[int(index)].fetch(name, start, length, masks=masks)

    def _joined_name(self, index: int, name: str) -> str:
        return name if len(self.sources) == 1 else f"{index}:{name}"
