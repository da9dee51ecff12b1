"""One episode out of a video that holds several, with times of its own."""

from collections.abc import Iterator
from dataclasses import replace

from ingest.closing import Closing
from ingest.frame import Frame
from ingest.store.records import Counters
from ingest.video.lerobot import Episode
from ingest.video.reader import VideoInfo, VideoReader


class EpisodeReader(Closing):
    """A VideoReader of the frames of an episode, whose times begin where it does."""

    def __init__(self, reader: VideoReader, episode: Episode) -> None:
        """Take over a `reader` of the whole video."""
        self._reader = reader
        self._episode = episode
        self._counters = Counters()
        rate = reader.info.fps
        share = min(1.0, rate / episode.fps) if rate else 1.0
        self._info = replace(
            reader.info,
            expected_frames=round(share * episode.length),
            promised_frames=episode.length,
            promised_seconds=episode.length / episode.fps,
        )

    @property
    def info(self) -> VideoInfo:
        """What is known before decoding."""
        return self._info

    @property
    def counters(self) -> Counters:
        """What became of the frames of the latest pass, up to the last one yielded."""
        return self._counters

    def frames(self, *, from_pts_ns: int | None = None) -> Iterator[Frame]:
        """Yield frames in time order, from the first one at or after `from_pts_ns`."""
        self._counters = Counters()
        tolerance_ns = self._episode.interval_ns // 2
        begin_ns = self._episode.begin_ns
        first_ns = begin_ns - tolerance_ns if from_pts_ns is None else begin_ns + from_pts_ns
        decoded = self._reader.frames(from_pts_ns=first_ns)
        return self._frames(decoded, end_ns=self._episode.end_ns - tolerance_ns)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def _frames(self, decoded: Iterator[Frame], *, end_ns: int) -> Iterator[Frame]:
        for frame in decoded:
            if frame.pts_ns >= end_ns:
                return
            self._counters = self._reader.counters
            yield replace(frame, pts_ns=frame.pts_ns - self._episode.begin_ns)
        self._counters = self._reader.counters  # with what was dropped after the last one
