"""Video files through decord: indexed access, with the scaling inside its decoder.

decord has wheels for x86-64 Linux only and an FFmpeg of 2018 (no AV1). It does not report damage,
but repeats the last good frame in its place: PyAV is the reader for damaged files. The times come
from PyAV, which need not decode for them; decord's own are rounded to float32 seconds.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
from jaxtyping import UInt8

from ingest.closing import Closing
from ingest.decoding.container import open_container, packet_times_ns, video_stream
from ingest.decoding.scaling import FitPlan, Scaler
from ingest.decoding.timeline import Placed, Timeline
from ingest.errors import SourceStopped, VideoError
from ingest.frame import Frame
from ingest.store.records import Counters, Fit, Size
from ingest.video.decord_process import DecordProcess
from ingest.video.masks import VideoMasks
from ingest.video.pyav_reader import probe
from ingest.video.reader import VideoInfo


class DecordReader(Closing):
    """A VideoReader of one undamaged file."""

    def __init__(
        self,
        path: str,
        *,
        size: Size = 128,
        fit: Fit = "crop",
        fps: float | None = None,
        masks: VideoMasks | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open a file; when it `should_stop`, this and reading raise SourceStopped.

        `masks` belong to the reader, which closes them.
        """
        self._fps = fps
        self._timeline = Timeline(interval_ns=None)
        probed = probe(path, Scaler(size=size, fit=fit), fps=fps, should_stop=should_stop)
        self._interval_ns, self._pace = probed.interval_ns, probed.pace
        if probed.plan.quarter_turns == 2 or probed.plan.is_mirrored:
            how = "mirrored" if probed.plan.is_mirrored else "upside down"
            raise VideoError(f"{path}: recorded {how}, which decord gets wrong; use --reader pyav")
        self._plan = probed.plan.turned()  # decord turns a frame upright by itself, then scales
        self._times_ns = _times_ns(path, should_stop)
        self._masks = masks
        self._decoder: DecordProcess | None = _open(
            path, self._plan, len(self._times_ns), should_stop
        )
        self._info = replace(probed.info, reader="decord", has_masks=masks is not None)

    @property
    def info(self) -> VideoInfo:
        """What is known before decoding."""
        return self._info

    @property
    def counters(self) -> Counters:
        """What became of the frames of the latest pass."""
        return self._timeline.counters

    def frames(self, *, from_pts_ns: int | None = None) -> Iterator[Frame]:
        """Yield frames in time order, from the first one at or after `from_pts_ns`."""
        self._timeline = Timeline(
            interval_ns=self._interval_ns,
            fps=self._fps,
            from_pts_ns=from_pts_ns,
            pace=self._pace,
        )
        return self._frames(self._timeline, from_pts_ns)

    def close(self) -> None:
        """Release the file."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = None
        if self._masks is not None:
            self._masks.close()

    def _frames(self, timeline: Timeline, from_pts_ns: int | None) -> Iterator[Frame]:
        # one earlier than asked for, to know whether the first one continues it
        begin = max(0, bisect_left(self._times_ns, from_pts_ns or 0) - 1)
        for index in range(begin, len(self._times_ns)):
            row = None
            if self._masks is not None:
                row = self._masks.row(pts_ns=self._times_ns[index], index=index)
                if self._masks.gap(row):
                    timeline.break_off()
            placed = timeline.place(self._times_ns[index])
            if placed is not None:
                yield self._frame(index, placed, row)

    def _frame(self, index: int, placed: Placed, row: int | None) -> Frame:
        masks = None
        if self._masks is not None and row is not None:
            masks = self._masks.placed(row, self._plan)
        image = self._plan.place(self._decode(index))
        return Frame(image=image, pts_ns=placed.pts_ns, gap=placed.gap, masks=masks)

    def _decode(self, index: int) -> UInt8[np.ndarray, "sh sw 3"]:
        if self._decoder is None:
            raise VideoError(f"{self._info.name}: the reader is closed; open it again")
        return self._decoder.frame(index)


def _times_ns(path: str, should_stop: Callable[[], bool]) -> list[int]:
    times: list[int | None] = []
    with closing(open_container(path)) as container:
        for time_ns in packet_times_ns(container, video_stream(container, path)):
            if should_stop():
                raise SourceStopped(path)
            times.append(time_ns)
    if not times or None in times:
        raise VideoError(f"{path}: frames without a time, which decord needs; use --reader pyav")
    return sorted(time for time in times if time is not None)


def _open(path: str, plan: FitPlan, frames: int, should_stop: Callable[[], bool]) -> DecordProcess:
    if find_spec("decord") is None:
        raise VideoError(
            "decord is not installed; it has wheels for x86-64 Linux only: use --reader pyav"
        )
    decoder = DecordProcess(
        path, width=plan.scaled_width, height=plan.scaled_height, should_stop=should_stop
    )
    if len(decoder) != frames:
        decoder.close()
        raise VideoError(
            f"{path}: decord counts {len(decoder)} frames, the file has {frames}; use --reader pyav"
        )
    return decoder
