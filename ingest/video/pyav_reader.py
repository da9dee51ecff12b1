"""Video files through PyAV: any container and codec that FFmpeg knows, damaged ones included.

demux ─▶ decode (all cores) ─▶ timeline: keep? ─▶ scale and convert to RGB in one pass ─▶ place
           └─ what is damaged, and refers to it, is counted and leaves a gap
"""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.addresses import without_secrets
from ingest.closing import Closing
from ingest.decoding.container import (
    is_encrypted,
    open_container,
    promised_seconds,
    sample,
    steps_ns,
    time_ns,
    up_to_key,
    video_stream,
    video_tracks,
)
from ingest.decoding.file_pass import decode_file, decode_on_one_thread
from ingest.decoding.scaling import FitPlan, Scaler
from ingest.decoding.timeline import Pace, Timeline
from ingest.decoding.traits import (
    PLAIN,
    Traits,
    go_back,
    may_have_wrong_times,
    times_in_stored_order,
)
from ingest.errors import VideoError
from ingest.frame import Frame
from ingest.store.records import Counters, Fit, Size
from ingest.video.masks import VideoMasks
from ingest.video.reader import VideoInfo

log = logging.getLogger(__name__)

_LOOKED_AT = 32
"""Frames by whose times it is decided whether a file has right ones."""


class PyAVReader(Closing):
    """A VideoReader of one file; opening it decodes one frame, so it is known to be video."""

    def __init__(
        self,
        path: str,
        *,
        size: Size = 128,
        fit: Fit = "crop",
        fps: float | None = None,
        track: int | None = None,
        masks: VideoMasks | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open a file; when it `should_stop`, this and reading raise SourceStopped.

        `track` numbers its video tracks from 1; without it the main one is read.

        `masks` belong to the reader, which closes them.
        """
        self._path = path
        self._track = track
        self._should_stop = should_stop
        self._fps = fps
        self._scaler = Scaler(size=size, fit=fit)
        self._timeline = Timeline(interval_ns=None)
        self._pass: Generator[Frame, None, None] | None = None
        probed = probe(path, self._scaler, fps=fps, track=track, should_stop=should_stop)
        self._info = replace(probed.info, has_masks=masks is not None)
        self._interval_ns, self._pace = probed.interval_ns, probed.pace
        self._traits = probed.traits
        self._masks = masks

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
        self._end_pass()
        self._timeline = Timeline(
            interval_ns=self._interval_ns,
            fps=self._fps,
            from_pts_ns=from_pts_ns,
            pace=self._pace,
        )
        self._pass = self._frames(self._timeline, from_pts_ns)
        return self._pass

    def close(self) -> None:
        """Release the file."""
        self._end_pass()
        if self._masks is not None:
            self._masks.close()

    def _end_pass(self) -> None:
        if self._pass is not None:
            self._pass.close()
            self._pass = None

    def _frames(self, timeline: Timeline, from_pts_ns: int | None) -> Generator[Frame, None, None]:
        with closing(open_container(self._path)) as container:
            stream = video_stream(container, self._path, track=self._track)
            aspect = pixel_aspect(stream)
            counts = self._masks is not None and self._masks.counts_frames
            decoding = decode_file(
                container,
                stream,
                self._path,
                timeline,
                from_pts_ns=None if counts else from_pts_ns,
                traits=self._traits,
                should_stop=self._should_stop,
            )
            for index, decoded in enumerate(decoding):
                frame = self._keep(decoded, aspect, timeline, index)
                if frame is not None:
                    yield frame

    def _keep(
        self, decoded: VideoFrame, aspect: Fraction, timeline: Timeline, index: int
    ) -> Frame | None:
        source_ns = time_ns(decoded)
        row = None if self._masks is None else self._row(self._masks, source_ns, timeline, index)
        placed = timeline.place(source_ns)
        if placed is None:
            return None
        plan = self._scaler.plan(decoded, aspect)
        if (plan.height, plan.width) != (self._info.height, self._info.width):
            raise VideoError(
                f"{self._path}: frames change from {self._info.width}x{self._info.height} to "
                f"{plan.width}x{plan.height} at {placed.pts_ns / 1e9:.3f} s; give them one --size"
            )
        return Frame(
            image=self._scaler.image(decoded, plan),
            pts_ns=placed.pts_ns,
            gap=placed.gap,
            masks=None if self._masks is None or row is None else self._masks.placed(row, plan),
        )

    def _row(self, masks: VideoMasks, source_ns: int | None, timeline: Timeline, index: int) -> int:
        """Where the masks of a frame are; an episode may begin there."""
        counted = timeline.counters if masks.counts_frames else Counters()
        if counted.dropped or counted.corrupt_packets:
            raise VideoError(
                f"{self._path}: damaged near frame {index}, so that its annotations cannot be "
                "counted from there; use a folder of its frames, or leave the masks out"
            )
        row = masks.row(pts_ns=source_ns, index=index)
        if masks.gap(row):
            timeline.break_off()
        return row


@dataclass(frozen=True, slots=True)
class Probed:
    """What one decoded frame says about a file."""

    info: VideoInfo
    plan: FitPlan
    interval_ns: int | None
    """Usual time between frames in nanoseconds, where the file says."""
    pace: Pace
    """Whether frames come at that rate all the time."""
    traits: Traits = PLAIN
    """How it is to be decoded."""


def probe(
    path: str,
    scaler: Scaler,
    *,
    fps: float | None,
    track: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Probed:
    """Decode one frame of a file; VideoError where none decodes."""
    try:
        return _probe(path, scaler, should_stop, fps=fps, track=track, traits=PLAIN)
    except VideoError as error:
        with suppress(VideoError):
            lenient = Traits(is_strict=False)
            probed = _probe(path, scaler, should_stop, fps=fps, track=track, traits=lenient)
            log.warning(
                "%s: breaks the rules of its codec throughout; what decodes is kept, and damage in "
                "it may go unseen",
                without_secrets(path),
            )
            return probed
        raise error


def _probe(
    path: str,
    scaler: Scaler,
    should_stop: Callable[[], bool],
    *,
    fps: float | None,
    track: int | None,
    traits: Traits,
) -> Probed:
    with closing(open_container(path)) as container:
        stream = video_stream(container, path, track=track)
        _tell_of_tracks(container, stream, path, track=track)
        ahead = up_to_key(container, stream)
        traits = replace(traits, marks_keys=not ahead or ahead[-1].is_keyframe)
        frames = decode_on_one_thread(
            container,
            stream,
            path,
            Timeline(interval_ns=None),
            ahead=ahead,
            traits=traits,
            should_stop=should_stop,
        )
        frame = next(frames, None)
        if frame is None:
            if is_encrypted(path, stream.index):
                raise VideoError(f"{path}: it is encrypted; decrypt it first, with the key")
            raise VideoError(f"{path}: no frame in it decodes; copy it again or re-encode it")
        aspect = pixel_aspect(stream)
        plan = scaler.plan(frame, aspect)
        rate = float(stream.average_rate) if stream.average_rate else None
        info = VideoInfo(
            name=without_secrets(path),
            reader="pyav",
            height=plan.height,
            width=plan.width,
            fps=min(rate, fps) if rate and fps else rate,
            expected_frames=_expected_frames(stream, rate, fps),
            codec=stream.codec_context.name,
            promised_frames=stream.frames or None,
            promised_seconds=promised_seconds(container, stream),
        )
        samples = sample(container, stream)
        pace = Pace(steps_ns(samples, stream.time_base))
        times = times_in_stored_order(stream, samples[0])
        is_doubtful = times is None and may_have_wrong_times(stream, samples[0])
    if is_doubtful and go_back(_first_times(path, traits, should_stop, track=track)):
        times = "dts"
    traits = replace(traits, times_by_order=times)
    return Probed(info, plan, round(1e9 / rate) if rate else None, pace, traits)


def _first_times(
    path: str, traits: Traits, should_stop: Callable[[], bool], *, track: int | None
) -> list[int | None]:
    """Times of the first frames of a file, in the order in which they are shown."""
    with closing(open_container(path)) as container:
        stream = video_stream(container, path, track=track)
        frames = decode_on_one_thread(
            container,
            stream,
            path,
            Timeline(interval_ns=None),
            traits=traits,
            should_stop=should_stop,
        )
        return [frame.pts for frame in islice(frames, _LOOKED_AT)]


def _tell_of_tracks(
    container: InputContainer, stream: VideoStream, path: str, *, track: int | None
) -> None:
    tracks = video_tracks(container)
    if track is None and len(tracks) > 1:
        held = ", ".join(f"{n}: {each.width}x{each.height}" for n, each in enumerate(tracks, 1))
        taken = next(n for n, each in enumerate(tracks, 1) if each.index == stream.index)
        log.warning(
            "%s: %d video tracks (%s); track %d is taken, and --track chooses another",
            without_secrets(path),
            len(tracks),
            held,
            taken,
        )


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of a pixel over its height."""
    return Fraction(stream.sample_aspect_ratio or 1)


def _expected_frames(stream: VideoStream, rate: float | None, fps: float | None) -> int | None:
    duration = stream.container.duration  # type: ignore[attr-defined]
    frames = stream.frames
    if not frames and duration and rate:
        frames = round(duration / av.time_base * rate)
    if frames and rate and fps and fps < rate:
        frames = round(frames * fps / rate)
    return frames or None
