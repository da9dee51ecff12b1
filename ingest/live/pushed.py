"""Frames that a program pushes by itself: a robot, a ROS node, a loop over a depth camera.

    with open_capture("store", "robot") as camera:
        for image in images:
            camera.push(image)          # uint8 (h, w, 3), RGB; any size

push ──▶ timeline ─▶ scale ─▶ backlog ──▶ a thread of its own ─▶ compress, write, commit
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from ingest.decoding.scaling import Scaler
from ingest.decoding.timeline import Pace, Timeline
from ingest.errors import VideoError
from ingest.frame import Frame
from ingest.live.backlog import Backlog, Taken
from ingest.live.capture import Captured, capture, open_live_store
from ingest.live.clock import SourceClock
from ingest.live.continued import interrupted
from ingest.store.records import Codec, Fit, RecordSettings, sides

POLL_SECONDS = 0.1


def open_capture(
    store: str | Path,
    name: str,
    *,
    size: int = 128,
    fit: Fit = "crop",
    fps: float | None = None,
    keep_seconds: float | None = None,
    codec: Codec = "zstd",
    backlog: Backlog | None = None,
) -> PushedCapture:
    """Begin the recording `name` in a store, which is made if it is missing; enter it to push.

    Frames become squares of `size` pixels, at most `fps` of them a second. `keep_seconds` and
    `codec` are as in `capture`, and a capture of that name that was cut off goes on. Raises
    StoreError: the store cannot take it, or has another recording of that name.
    """
    opened = open_live_store(store)
    settings = RecordSettings(size=size, fit=fit, fps=fps, reader="camera")
    camera = PushedCamera(name, settings, backlog or Backlog())
    # refused here already
    interrupted(opened, name, path=str(camera.device), settings=settings, codec=codec)
    return PushedCapture(
        camera, lambda: capture(camera, opened, name=name, keep_seconds=keep_seconds, codec=codec)
    )


class PushedCamera:
    """A `LiveSource` of what a program pushes."""

    def __init__(self, name: str, settings: RecordSettings, backlog: Backlog) -> None:
        assert settings.size is not None
        self.device = PushedDevice(name)
        self.settings = settings
        self.width, self.height = sides(settings.size)
        self.fps = settings.fps
        self.reconnects = 0
        self.began_at = time.monotonic()
        self._backlog = backlog
        self._scaler = Scaler(size=settings.size, fit=settings.fit)
        self._clock = SourceClock()
        self._timeline = Timeline(interval_ns=None, fps=settings.fps, pace=Pace(learns=True))
        self._keeping = threading.Lock()

    def take(self, count: int) -> Taken | None:
        """The `count` oldest frames, or after `stop` what is left; None if they are to come yet."""
        return self._backlog.take(count, POLL_SECONDS)

    def stop(self) -> None:
        """Take no more frames."""
        with self._keeping:
            self._backlog.end(counters=self._timeline.counters)

    def keep(self, image: UInt8[np.ndarray, "h w 3"], captured_ns: int, *, gap: bool) -> None:
        """Put a frame into the backlog, or count why not."""
        decoded = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        with self._keeping:
            source_ns = self._clock.since_began(captured_ns, time.monotonic_ns())
            if gap or self._clock.has_jumped:
                self._timeline.break_off()
            placed, frame = self._timeline.place(source_ns), None
            if placed is not None:
                scaled = self._scaler.image(decoded, self._scaler.plan(decoded, Fraction(1)))
                frame = Frame(scaled, placed.pts_ns, placed.gap, captured_ns)
            self._backlog.put(frame, self._timeline.counters)


class PushedDevice:
    """Where the frames come from, for people."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return f"push:{self._name}"

    def recording_name(self, now: datetime) -> str:
        """The name that was given."""
        return self._name


class PushedCapture:
    """A recording that grows by what is pushed, until it is left."""

    def __init__(self, camera: PushedCamera, record: Callable[[], Captured]) -> None:
        self._camera = camera
        self._record = record
        self._captured: Captured | None = None
        self._error: BaseException | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name=f"capture {camera.device}")

    @property
    def captured(self) -> Captured | None:
        """How it ended, once it is left."""
        return self._captured

    def push(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        captured_ns: int | None = None,
        *,
        gap: bool = False,
    ) -> None:
        """Add a frame, captured at `captured_ns` since 1970, or now; never waits for the disk.

        Where the disk is too slow the oldest frames that wait are dropped and counted, and the one
        after them is a gap. So is a frame much later than the others were, one whose time steps
        back or jumps by a minute, and one that is pushed with `gap`. For one thread at a time.

        Raises ValueError: the image is not uint8 RGB; StoreError: the recording cannot be written
        any more; VideoError: the capture was left, or not entered yet.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"an image must be uint8 (h, w, 3), got {image.dtype} {image.shape}")
        if self._error is not None:
            raise self._error
        if self._is_over or not self._thread.ident:
            raise VideoError(f"{self._camera.device}: is not open; push within `with`")
        captured_ns = time.time_ns() if captured_ns is None else captured_ns
        self._camera.keep(image, captured_ns, gap=gap)

    def __enter__(self) -> PushedCapture:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what waits and end the recording; raises the StoreError that kept it from that."""
        self._is_over = True
        self._camera.stop()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _run(self) -> None:
        try:
            self._captured = self._record()
        except BaseException as error:  # raised where frames are pushed
            self._error = error
