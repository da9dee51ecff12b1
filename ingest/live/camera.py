"""A camera that never has to wait: a thread of its own reads it, and reconnects when it is lost.

connect ─▶ demux ─▶ decode ─▶ timeline ─▶ scale ─▶ backlog ─▶ take()
   ▲                                        └─ wall clock as the decoder gives it: captured_ns
   └── 0.5 s, 1 s, ... 30 s ── lost: an error, the end, silence; the next frame is a gap

One thread reads and another watches it: a driver may never return, and then its thread is left to
itself.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.decoding.container import shown_packets, time_ns
from ingest.decoding.decoder import MAX_BAD_PACKETS, Decoder
from ingest.decoding.losses import losses_of_device, with_following
from ingest.decoding.scaling import Scaler
from ingest.decoding.timeline import Pace, Timeline
from ingest.errors import VideoError
from ingest.frame import Frame
from ingest.live import connecting
from ingest.live.backlog import Backlog, Taken
from ingest.live.clock import SourceClock, Times
from ingest.live.connecting import Connected, connected, reason
from ingest.live.devices import Device
from ingest.store.records import RecordSettings, sides
from ingest.video.pyav_reader import pixel_aspect

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Before connecting again: at first, and at most, after doubling."""
POLL_SECONDS = 0.1
LEAVE_SECONDS = 1.0
"""How long a read that hangs is waited for: some drivers never return from it."""
NO_FRAME_SECONDS = 60.0
"""How long packets may come without a frame among them; key frames are seconds apart."""
MOST_HANGING = 2
"""Threads that may hang in a driver before it is given up."""
MEASURED_SECONDS = 1.0
"""How long the frames of a device are counted that does not say how many come."""
_SILENT_FRAMES = 5
_FASTEST_FPS = 240.0  # a stream without a rate shows its time base, such as 90000


class _EndedError(VideoError):
    """A device hung up."""


class _Connection:
    """State shared by the thread that reads a device and the one that watches it."""

    def __init__(self) -> None:
        self.heard_at = time.monotonic()
        self.shown_at = self.heard_at
        self.has_heard = False
        self.is_over = False
        self.error: BaseException | None = None
        self.silent_seconds = connecting.SILENT_SECONDS

    def is_silent(self, limit_seconds: float) -> bool:
        return time.monotonic() - self.heard_at > limit_seconds


class Camera:
    """A device while it is watched: entering waits for its first frame, leaving disconnects."""

    def __init__(
        self,
        device: Device,
        settings: RecordSettings,
        *,
        backlog: Backlog | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Describe frames of `settings`; `should_stop` ends the wait for the first of them."""
        if settings.size is None:
            raise ValueError("size must be given: a camera may change its own at any time")
        self.device = device
        self.settings = settings
        self.width, self.height = sides(settings.size)
        """Of the frames, in pixels."""
        self.fps: float | None = None
        """Frames per second that come out, at most; None where it is not known."""
        self.reconnects = 0
        """How often it was lost and has come back."""
        self.began_at = 0.0
        """When the first frame had come, on the monotonic clock."""
        self._backlog = backlog or Backlog()
        self._should_stop = should_stop
        self._scaler = Scaler(size=settings.size, fit=settings.fit)
        self._clock = SourceClock()
        self._timeline = Timeline(interval_ns=None)
        self._pause = FIRST_PAUSE_SECONDS
        self._hanging: list[threading.Thread] = []
        self._keeping = threading.Lock()
        self._halt = threading.Event()
        self._thread = threading.Thread(
            target=self._watch,
            name=f"camera {device}",
            daemon=True,  # it may hang in a driver, and nothing may wait for that
        )

    def take(self, count: int) -> Taken | None:
        """The `count` oldest frames, or after `stop` what is left; None if they are to come yet."""
        return self._backlog.take(count, POLL_SECONDS)

    def stop(self) -> None:
        """Read no further; the frames that wait can still be taken."""
        self._halt.set()
        with self._keeping:
            self._backlog.end(counters=self._timeline.counters)

    def __enter__(self) -> "Camera":
        """Connect, and wait for the first frame; VideoError where none comes."""
        self._thread.start()
        try:
            while not self._backlog.has_frame(POLL_SECONDS):
                if self._should_stop():
                    raise VideoError(f"{self.device}: stopped before its first frame")
        except BaseException:
            self._leave()
            raise
        self.began_at = time.monotonic()
        if self.fps is None:
            self.fps = self._measured_fps()
        return self

    def _measured_fps(self) -> float | None:
        """Frames that come in a second, where the device does not say; None where none come."""
        before = self._timeline.counters.stored
        self._halt.wait(MEASURED_SECONDS)
        return (self._timeline.counters.stored - before) / MEASURED_SECONDS or None

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self.stop()
        self._thread.join(LEAVE_SECONDS)

    def _watch(self) -> None:
        """Follow one connection after the other, until `stop`."""
        try:
            while not self._halt.is_set():
                try:
                    self._watch_connection()
                except VideoError as lost:
                    if not self._timeline.counters.stored:
                        raise
                    if self.device.comes_once:
                        log.log(
                            logging.INFO if isinstance(lost, _EndedError) else logging.WARNING, lost
                        )
                        return self.stop()
                    log.warning("%s; connecting again in %g s", lost, self._pause)
                    self._halt.wait(self._pause)
                    self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        except BaseException as error:  # it belongs to the thread that waits for the frames
            self._backlog.end(error)

    def _watch_connection(self) -> None:
        """Let a thread read from a new connection; VideoError when it is lost, or hangs."""
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MOST_HANGING:
            raise VideoError(f"{self.device}: its driver still hangs; is it still there?")
        connection = _Connection()
        reader = threading.Thread(
            target=self._follow, args=(connection,), name=f"read {self.device}", daemon=True
        )
        reader.start()
        while reader.is_alive() and not self._halt.is_set():
            reader.join(POLL_SECONDS)
            if reader.is_alive() and connection.is_silent(self._patience(connection)):
                with self._keeping:
                    connection.is_over = True  # it may wake up, but its frames come too late
                self._hanging.append(reader)
                raise VideoError(f"{self.device}: it hangs; is it still sending?")
        if self._halt.is_set():
            reader.join(LEAVE_SECONDS)
        if connection.error is not None:
            raise connection.error

    def _patience(self, connection: "_Connection") -> float:
        """Seconds. FFmpeg's own limits come first, where it keeps them: local devices block."""
        if self.device.is_pipe:
            return math.inf
        if not connection.has_heard:
            return 2 * connecting.OPEN_SECONDS + connection.silent_seconds
        return max(2 * connection.silent_seconds, _SILENT_FRAMES / (self.fps or _FASTEST_FPS))

    def _follow(self, connection: "_Connection") -> None:
        """Put the frames of one connection into the backlog, until it is lost."""
        try:
            with connected(self.device) as found:
                stream = found.video(str(self.device))
                connection.silent_seconds = found.silent_seconds
                stream.thread_type = "SLICE"  # whole frames in parallel would each come later
                with self._keeping:
                    if not connection.is_over:
                        self._begin(stream, found.times)
                aspect, is_back = pixel_aspect(stream), self._timeline.counters.stored > 0
                for decoded in self._decode(found, stream, connection):
                    with self._keeping:
                        if connection.is_over or self._halt.is_set():
                            return
                        self.reconnects += is_back
                        is_back = False
                        self._pause = FIRST_PAUSE_SECONDS
                        connection.shown_at = time.monotonic()
                        self._keep(decoded, aspect)
        except BaseException as error:  # it belongs to the thread that watches
            connection.error = error

    def _begin(self, stream: VideoStream, times: Times) -> None:
        """Make ready for a connection, which may have another rate than the one before it."""
        self._clock.connected(times)
        rate = float(stream.average_rate or 0)
        known = times != "arrival" and 0 < rate <= _FASTEST_FPS
        wanted = self.settings.fps
        self.fps = min(rate, wanted or rate) if known else wanted
        interval_ns = round(1e9 / rate) if known else None
        if self._timeline.counters.decoded:
            self._timeline.begin_anew(interval_ns=interval_ns)
        else:
            # arrivals jitter: a late one is not evidence that something is missing before it
            pace = Pace(learns=times == "own")
            self._timeline = Timeline(interval_ns=interval_ns, fps=wanted, pace=pace)

    def _decode(
        self, found: Connected, stream: VideoStream, connection: "_Connection"
    ) -> Iterator[VideoFrame]:
        """Sound frames until the connection is lost; the others are counted and passed over."""
        losses = losses_of_device(stream, self._timeline.pace)
        decoder = Decoder(stream, self._timeline, losses)
        lost = None
        try:
            packets = with_following(shown_packets(found.container, stream), losses)
            for number, (packet, following) in enumerate(packets):
                connection.heard_at, connection.has_heard = time.monotonic(), True
                if connection.is_over or self._halt.is_set():
                    return
                yield from decoder.decode(number, packet, following)
                if decoder.errors_in_a_row >= MAX_BAD_PACKETS:
                    lost = f"{MAX_BAD_PACKETS} packets in a row did not decode"
                    break
                if connection.heard_at - connection.shown_at > NO_FRAME_SECONDS:
                    lost = f"it has sent packets for {NO_FRAME_SECONDS:g} s, and no key frame"
                    break
        except FFmpegError as error:
            lost = reason(error)
        yield from decoder.end()  # what it holds back, and the count of what was damaged
        if lost is None:
            raise _EndedError(f"{self.device}: its stream has ended; is it still sending?")
        raise VideoError(f"{self.device}: {lost}; is it still sending?")

    def _keep(self, decoded: VideoFrame, pixel_aspect: Fraction) -> None:
        captured_ns, now_ns = time.time_ns(), time.monotonic_ns()
        source_ns = self._clock.since_began(time_ns(decoded), now_ns)
        if self._clock.has_jumped:
            self._timeline.break_off()
        placed = self._timeline.place(source_ns)
        frame = None
        if placed is not None:
            frame = Frame(
                image=self._scaler.image(decoded, self._scaler.plan(decoded, pixel_aspect)),
                pts_ns=placed.pts_ns,
                gap=placed.gap,
                captured_ns=captured_ns,
            )
        self._backlog.put(frame, self._timeline.counters)
