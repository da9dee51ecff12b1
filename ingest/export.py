"""Export a recording as a video: every frame at its own time, with its masks next to it.

It is H.264 in 4:4:4, nearly lossless: that carries every size from 1x1 on as it is, odd ones too,
and keeps the colours of small objects, which 4:2:0 smears (21 against 37 dB on the sprites). A
player that decodes 4:2:0 only needs it converted.

Times are kept as they are, in microseconds, those of the first frame and of an excerpt too; only a
recording that begins before time 0, which an mp4 cannot, is moved there. Gaps travel with the
masks: without these, ingesting the video again finds gaps longer than a second and ten frames.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ingest.errors import ExportError
from ingest.frame import Frames
from ingest.store.cache import ChunkCache
from ingest.store.output import writing
from ingest.store.protocols import RecordingReader, Store
from ingest.video.masks import sidecar_path
from ingest.video.mp4_writer import ticks, video_fault, write_mp4

log = logging.getLogger(__name__)

_TICKS_PER_SECOND = (1_000_000, 90_000, 10_000)  # below these, the muxer counts in finer ones
_LONGEST_STEP = (1 << 31) - 1  # of an mp4, in ticks
_SHORTEST_STEP = 4  # masks are found again within a quarter of a frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What `export_recording` wrote."""

    video: Path
    sidecar: Path | None
    """The masks, where the recording has some."""
    frames: int
    duration_seconds: float
    """From the first frame to the last."""


def export_recording(
    store: Store,
    name: str,
    path: str | Path,
    *,
    start: float = 0.0,
    seconds: float | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write the committed frames of a recording to the video `path`, ending in .mp4.

    `start` counts from the first frame that is still there, `seconds` from there; `progress` gets
    frames written and frames in all. Raises ExportError where files are in the way or there are
    no such frames, StoreError where one is damaged or nothing can be written; then no file is made
    or changed.
    """
    path = Path(path)
    if fault := video_fault(path, what="a recording", overwrite=overwrite):
        raise ExportError(fault)
    with store.reader(name, cache=ChunkCache(0)) as reader, writing(path):
        chosen = _chosen(f"{store.location}: recording {name!r}", reader, start, seconds)
        _write(path, reader, chosen, progress or (lambda written, length: None))
        has_masks = reader.commit.has_masks
    return Exported(
        video=path,
        sidecar=sidecar_path(path) if has_masks else None,
        frames=len(chosen.pts_ns),
        duration_seconds=float(chosen.pts_ns[-1] - chosen.pts_ns[0]) / 1e9,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """Frames first..stop of a recording, as a video can hold them."""

    first: int
    stop: int
    pts_ns: Int64[np.ndarray, " n"]
    ticks_per_second: int


def _chosen(where: str, reader: RecordingReader, start: float, seconds: float | None) -> _Chosen:
    """The frames that were asked for; ExportError where there are none, or no video holds them."""
    released, pts_ns = reader.commit.released, reader.pts_ns()
    if released and released == reader.commit.length:
        raise ExportError(
            f"{where}: all its frames were deleted, nothing is left to export; "
            "capture with a longer --keep"
        )
    first, stop = _excerpt(where, pts_ns[released:], start, seconds)
    first, stop = first + released, stop + released
    pts_ns = pts_ns[first:stop]
    return _Chosen(first, stop, pts_ns, _ticks_per_second(where, pts_ns))


def _write(
    path: Path, reader: RecordingReader, chosen: _Chosen, progress: Callable[[int, int], None]
) -> None:
    commit, length = reader.commit, len(chosen.pts_ns)
    early_ns = max(0, -int(chosen.pts_ns[0]))
    if early_ns:
        log.warning("%s: begins before time 0; shifted by %.6f s", path, early_ns / 1e9)
    with write_mp4(
        path,
        height=commit.height,
        width=commit.width,
        length=length,
        fps=_usual_rate(chosen.pts_ns),
        ticks_per_second=chosen.ticks_per_second,
        has_masks=commit.has_masks,
        attributes={"recording": reader.name, "source": commit.source.path},
    ) as write:
        written = 0
        for frames in _blocks(reader, chosen.first, chosen.stop):
            write(replace(frames, pts_ns=frames.pts_ns + early_ns))
            written += len(frames)
            progress(written, length)


def _excerpt(
    where: str, pts_ns: Int64[np.ndarray, " n"], start: float, seconds: float | None
) -> tuple[int, int]:
    """First frame and the one after the last."""
    if not len(pts_ns):
        raise ExportError(f"{where}: no frame is committed yet; wait for its first ones")
    begin = int(pts_ns[0]) + round(start * 1e9)
    first, stop = int(np.searchsorted(pts_ns, begin)), len(pts_ns)
    if seconds is not None:
        stop = int(np.searchsorted(pts_ns, begin + round(seconds * 1e9)))
    if first == stop:
        span = f"from {start:g} s on" + ("" if seconds is None else f" for {seconds:g} s")
        last = (pts_ns[-1] - pts_ns[0]) / 1e9
        raise ExportError(
            f"{where}: no frame {span}, its last one is at {last:.3f} s; "
            "choose another --start or --seconds"
        )
    return first, stop


def _blocks(reader: RecordingReader, first: int, stop: int) -> Iterator[Frames]:
    """The frames, a chunk at a time."""
    length = reader.commit.chunk_length
    for begin in range(first - first % length, stop, length):
        yield reader.read(max(begin, first), min(begin + length, stop), masks=True)


def _usual_rate(pts_ns: Int64[np.ndarray, " n"]) -> Fraction:
    """Frames per second for programs that read the header; the times themselves are exact."""
    if len(pts_ns) == 1:
        return Fraction(25)
    rate = Fraction(1_000_000_000, int(np.median(np.diff(pts_ns)))).limit_denominator(1001)
    return min(max(rate, Fraction(1)), Fraction(1000))


def _ticks_per_second(where: str, pts_ns: Int64[np.ndarray, " n"]) -> int:
    """The finest time base in which no frame lasts longer than an mp4 can say."""
    for rate in _TICKS_PER_SECOND:
        steps = np.diff(ticks(pts_ns, rate))
        if np.all((steps >= _SHORTEST_STEP) & (steps <= _LONGEST_STEP)):
            return rate
    steps = np.diff(pts_ns) / 1e9
    raise ExportError(
        f"{where}: frames are {steps.min():g} to {steps.max():g} s apart, which no time base of an "
        "mp4 can hold; export less with --start and --seconds"
    )
