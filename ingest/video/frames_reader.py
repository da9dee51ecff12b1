"""Frames that are already single pictures: `ImageFolder`, or the 2021 port's HDF5 archive.

Neither has a clock: frames come at `fps` per second, 30 unless one asks for another rate.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import h5py
import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from ingest.closing import Closing
from ingest.decoding.scaling import FitPlan, Scaler
from ingest.decoding.timeline import Timeline
from ingest.errors import VideoError
from ingest.frame import Frame
from ingest.store.records import Counters, Fit, Size
from ingest.video.annotations import Annotations, check_frames, placed_labels
from ingest.video.reader import VideoInfo

DEFAULT_FPS = 30.0
MAX_BAD_PICTURES = 300
"""This many pictures in a row that do not decode mean that the rest is lost."""

_LATEST_NS = 1 << 62


class DamagedPictureError(Exception):
    """One picture does not decode; the others may."""


@runtime_checkable
class Pictures(Protocol):
    """Numbered pictures; the numbers grow, and a hole in them is a gap."""

    kind: str
    name: str
    numbers: list[int]

    def picture(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decode the picture at `numbers[index]`; DamagedPictureError where that fails."""
        ...

    def close(self) -> None:
        """Release files."""
        ...


class FrameArchive:
    """One group of the 2021 port's archive: a gzip dataset per frame, named "0", "1", ..."""

    kind = "archive"

    def __init__(self, path: Path, part: str) -> None:
        self.name = f"{path} ({part})"
        try:
            self._file = h5py.File(path, "r")
            group = self._file[part]
        except (OSError, RuntimeError, KeyError) as error:  # h5py raises all of them
            raise VideoError(
                f"{self.name}: not a frame archive ({error}); it needs the groups train and test"
            ) from error
        if not isinstance(group, h5py.Group):
            raise VideoError(f"{self.name}: not a group of frames; this is not a frame archive")
        self._group = group
        self.numbers = sorted(int(name) for name in map(str, group) if name.isdecimal())

    def picture(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decompress one frame."""
        where = f"{self.name}: frame {self.numbers[index]}"
        try:
            pixels = np.asarray(self._group[str(self.numbers[index])])
        except (OSError, RuntimeError, KeyError) as error:  # KeyError: "007" is not frame 7
            raise DamagedPictureError(f"{where}: {error}") from error
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise VideoError(
                f"{where} is {pixels.dtype} of shape {pixels.shape}; frames must be uint8 (h, w, 3)"
            )
        return pixels

    def close(self) -> None:
        """Close the archive."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class _Numbered:
    index: int
    number: int
    picture: VideoFrame


class PictureMasks:
    """Annotations of pictures that have names."""

    def __init__(self, annotations: Annotations, pictures: Sequence[str], source: str) -> None:
        """`pictures` are their names without suffixes. Raises VideoError for those of others."""
        if not pictures:
            raise VideoError(f"{source}: pages of files, which masks cannot be named after")
        check_frames(annotations, pictures, source)
        self._annotations = annotations
        annotated = set(annotations.frames)
        self._frames = [picture if picture in annotated else None for picture in pictures]

    def labels(
        self, index: int, plan: FitPlan, *, shape: tuple[int, int]
    ) -> UInt8[np.ndarray, "h w"]:
        """Label map of a picture of `shape` (h, w), fitted as it is; not known without one."""
        return placed_labels(self._annotations, self._frames[index], plan, shape=shape)


class PictureReader(Closing):
    """A VideoReader over pictures, `fps` of them in a second."""

    def __init__(
        self,
        pictures: Pictures,
        *,
        size: Size = 128,
        fit: Fit = "crop",
        fps: float | None = None,
        masks: PictureMasks | None = None,
    ) -> None:
        self._pictures = pictures
        self._masks = masks
        self._scaler = Scaler(size=size, fit=fit)
        self._interval_ns = 1e9 / (fps or DEFAULT_FPS)
        self._timeline = Timeline(interval_ns=None)
        self._check_numbers()
        self._info = self._probe(fps or DEFAULT_FPS)

    @property
    def info(self) -> VideoInfo:
        """What is known before decoding."""
        return self._info

    @property
    def counters(self) -> Counters:
        """What became of the pictures of the latest pass."""
        return self._timeline.counters

    def frames(self, *, from_pts_ns: int | None = None) -> Iterator[Frame]:
        """Yield frames in order, from the first one at or after `from_pts_ns`."""
        self._timeline = Timeline(interval_ns=round(self._interval_ns), from_pts_ns=from_pts_ns)
        return self._frames(self._timeline, from_pts_ns)

    def close(self) -> None:
        """Release the files."""
        self._pictures.close()

    def _check_numbers(self) -> None:
        """Refuse numbers so high that their times have no place in 64 bits."""
        highest = max(self._pictures.numbers, default=0)
        if highest > _LATEST_NS / self._interval_ns:
            raise VideoError(
                f"{self._pictures.name}: by their numbers, the last picture comes over a century "
                "after the first; number them anew, or leave the last out"
            )

    def _probe(self, fps: float) -> VideoInfo:
        first = next(self._decoded(Timeline(interval_ns=None), 0), None)
        if first is None:
            raise VideoError(f"{self._pictures.name}: no pictures in it; name where they are")
        frame = first.picture
        plan = self._scaler.plan(frame)
        return VideoInfo(
            name=self._pictures.name,
            reader=self._pictures.kind,
            height=plan.height,
            width=plan.width,
            fps=fps,
            expected_frames=len(self._pictures.numbers),
            codec=self._pictures.kind,
            has_masks=self._masks is not None,
        )

    def _frames(self, timeline: Timeline, from_pts_ns: int | None) -> Iterator[Frame]:
        # one earlier than asked for, to know whether the first one continues it
        begin = 0 if from_pts_ns is None else self._index_at(from_pts_ns)
        for numbered in self._decoded(timeline, begin):
            placed = timeline.place(self._time_ns(numbered.number))
            if placed is None:
                continue
            plan = self._scaler.plan(numbered.picture)
            if (plan.height, plan.width) != (self._info.height, self._info.width):
                raise VideoError(
                    f"{self._pictures.name}: picture {numbered.number} would be {plan.width}x"
                    f"{plan.height}, the first {self._info.width}x{self._info.height}; "
                    "give them one --size"
                )
            image = self._scaler.image(numbered.picture, plan)
            masks, shape = None, (numbered.picture.height, numbered.picture.width)
            if self._masks is not None:
                masks = self._masks.labels(numbered.index, plan, shape=shape)
            yield Frame(image=image, pts_ns=placed.pts_ns, gap=placed.gap, masks=masks)

    def _decoded(self, timeline: Timeline, begin: int) -> Iterator[_Numbered]:
        """Decode pictures from an index on; damaged ones are counted and leave a gap."""
        bad, numbers = 0, self._pictures.numbers
        for index in range(begin, len(numbers)):
            if index and numbers[index] != numbers[index - 1] + 1:
                timeline.break_off()
            try:
                pixels = self._pictures.picture(index)
            except DamagedPictureError as error:
                timeline.corrupt_packet()
                bad += 1
                if bad >= MAX_BAD_PICTURES:
                    raise VideoError(
                        f"{self._pictures.name}: {bad} pictures in a row do not decode, the last "
                        f"being {error}; the rest is lost: repair them or leave them out"
                    ) from error
                continue
            bad = 0
            yield _Numbered(index, numbers[index], VideoFrame.from_ndarray(pixels, format="rgb24"))

    def _time_ns(self, number: int) -> int:
        return round(number * self._interval_ns)

    def _index_at(self, pts_ns: int) -> int:
        times = [self._time_ns(number) for number in self._pictures.numbers]
        return max(0, bisect_left(times, pts_ns) - 1)
