"""Masks in a JSON file of COCO's format: YouTube-VIS (`videos`), or images with `track_id`.

Segments are run lengths or polygons, which pycocotools decodes; it is an optional extra.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from jaxtyping import UInt8

from ingest.errors import VideoError
from ingest.frame import UNKNOWN_LABEL
from ingest.video.annotations import MOST_LABELS


class _RunLengths(msgspec.Struct):
    size: tuple[int, int]
    counts: str | list[int]


_FEWEST_NUMBERS = 6
"""Of a polygon: three points."""

_Segment = _RunLengths | list[list[float]]


class _Video(msgspec.Struct):
    id: int | str
    width: int = 0
    height: int = 0
    file_names: list[str] = []
    name: str = ""


class _Image(msgspec.Struct):
    id: int | str
    file_name: str
    width: int
    height: int
    video_id: int | str | None = None


class _Annotation(msgspec.Struct):
    video_id: int | str | None = None
    image_id: int | str | None = None
    segmentations: list[_Segment | None] = []
    segmentation: _Segment | None = None
    iscrowd: int = 0
    track_id: int | str | None = None
    instance_id: int | str | None = None
    attributes: dict[str, Any] = {}

    @property
    def identity(self) -> Any:
        """What the same object has in every image; None where nothing says so."""
        if self.track_id is not None or self.instance_id is not None:
            return self.track_id if self.track_id is not None else self.instance_id
        return self.attributes.get("track_id")


class _File(msgspec.Struct):
    videos: list[_Video] = []
    images: list[_Image] = []
    annotations: list[_Annotation] = []


@dataclass(frozen=True, slots=True)
class _Frame:
    height: int
    width: int
    segments: list[tuple[int, _Segment]] = field(default_factory=list)
    """Label and segment; later ones cover earlier ones."""


_Frames = dict[str, _Frame]


class CocoAnnotations:
    """The label maps of one video of a file."""

    def __init__(self, path: Path, video: str) -> None:
        self.name = f"{path} ({video})" if video else str(path)
        self._frames = coco_videos(path)[video]
        self.frames = list(self._frames)

    def labels(self, frame: str) -> UInt8[np.ndarray, "h w"]:
        """Draw the objects of a frame; those listed later cover those before."""
        found = self._frames[frame]
        labels = np.zeros((found.height, found.width), np.uint8)
        for label, segment in found.segments:
            labels[self._decoded(segment, frame, labels.shape)] = label
        return labels

    def _decoded(self, segment: _Segment, frame: str, shape: tuple[int, int]) -> np.ndarray:
        tools = _tools(self.name)
        if not isinstance(segment, list) and segment.size != shape:
            height, width = segment.size
            raise VideoError(
                f"{self.name}: a segment of {frame!r} is {width}x{height}, its picture "
                f"{shape[1]}x{shape[0]}; export it again"
            )
        try:
            if isinstance(segment, list):
                _check_polygons(segment, *shape)
                lengths = tools.merge(tools.frPyObjects(segment, *shape))
            elif isinstance(segment.counts, list):
                _check_counts(segment.counts, *shape)
                lengths = tools.frPyObjects(msgspec.to_builtins(segment), *shape)
            else:
                lengths = {"size": list(shape), "counts": segment.counts.encode()}
            return tools.decode(lengths).astype(bool)
        except Exception as error:  # pycocotools raises Exception itself
            raise VideoError(
                f"{self.name}: a segment of {frame!r} does not decode ({error}); export it again"
            ) from error


def _check_polygons(polygons: list[list[float]], height: int, width: int) -> None:
    """ValueError for what pycocotools takes for a box, or would draw far outside the picture: it
    makes room for every pixel of an outline, and crashes where that is too much.
    """
    if not polygons:
        raise ValueError("no polygon")
    for polygon in polygons:
        if len(polygon) < _FEWEST_NUMBERS or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers, not of three or more points")
        for value, side in zip(polygon, itertools.cycle((width, height))):
            if not -side <= value <= 2 * side:  # so is NaN
                raise ValueError(f"a point at {value:g} of {side} pixels")


def _check_counts(counts: list[int], height: int, width: int) -> None:
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"run lengths from {min(counts, default=0)} on, {sum(counts)} pixels")


def coco_videos(path: Path) -> dict[str, _Frames]:
    """The annotated frames of every video of a file, by name; VideoError where it has none."""
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=1)  # a file of thousands of videos is read once for all of them
def _read(path: Path, _mtime_ns: int, _size: int) -> dict[str, _Frames]:
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VideoError(f"{path}: not a JSON file in COCO's format ({error})") from error
    videos = _of_images(file, path) if file.images else _of_videos(file, path)
    if not videos:
        raise VideoError(f"{path}: names no videos and no images; export it again")
    return videos


def _of_videos(file: _File, path: Path) -> dict[str, _Frames]:
    """YouTube-VIS: an annotation is an object, with a segment or nothing for each frame."""
    found: dict[str, _Frames] = {}
    by_id: dict[Any, list[_Frame]] = {}
    objects: dict[Any, int] = {}
    for video in file.videos:
        size = video.height, video.width
        frames = {PurePosixPath(name).stem: _Frame(*size) for name in video.file_names}
        found[video.name or _folder(video.file_names)] = frames
        by_id[video.id] = list(frames.values())
    for annotation in file.annotations:
        frames, segments = by_id.get(annotation.video_id), annotation.segmentations
        if frames is None or len(frames) != len(segments):
            raise VideoError(
                f"{path}: an annotation of video {annotation.video_id!r} has {len(segments)} "
                f"segments for {0 if frames is None else len(frames)} frames; export it again"
            )
        label = UNKNOWN_LABEL
        if not annotation.iscrowd:
            label = objects[annotation.video_id] = objects.get(annotation.video_id, 0) + 1
            _check_label(label, path, annotation.video_id)
        for frame, segment in zip(frames, segments, strict=True):
            if segment is not None:
                frame.segments.append((label, segment))
    return found


def _of_images(file: _File, path: Path) -> dict[str, _Frames]:
    """COCO: an annotation is an object in one image, and says which object it is."""
    names = {video.id: video.name for video in file.videos}
    found: dict[str, _Frames] = {}
    by_id: dict[Any, tuple[str, _Frame]] = {}
    for image in file.images:
        of_video = "" if image.video_id is None else names.get(image.video_id, "")
        video = PurePosixPath(of_video).stem or _folder([image.file_name])
        frame = _Frame(image.height, image.width)
        found.setdefault(video, {})[PurePosixPath(image.file_name).stem] = frame
        by_id[image.id] = (video, frame)
    labels: dict[tuple[str, Any], int] = {}
    objects: dict[str, int] = {}
    for annotation in file.annotations:
        if annotation.image_id not in by_id or annotation.segmentation is None:
            raise VideoError(
                f"{path}: an annotation of image {annotation.image_id!r} has no image or no "
                "segment; export it again, with masks"
            )
        video, frame = by_id[annotation.image_id]
        if annotation.iscrowd:
            frame.segments.append((UNKNOWN_LABEL, annotation.segmentation))
            continue
        if annotation.identity is None:
            raise VideoError(
                f"{path}: annotations without a track_id, so that nothing says which objects of "
                "two frames are the same; export it as YouTube-VIS, or with tracks"
            )
        key = (video, annotation.identity)
        if key not in labels:
            labels[key] = objects[video] = objects.get(video, 0) + 1
            _check_label(labels[key], path, video)
        frame.segments.append((labels[key], annotation.segmentation))
    return found


def _check_label(label: int, path: Path, video: Any) -> None:
    if label > MOST_LABELS:
        raise VideoError(
            f"{path}: more than {MOST_LABELS} objects in video {video!r}; leave some out"
        )


def _folder(file_names: Sequence[str]) -> str:
    return PurePosixPath(file_names[0]).parent.name if file_names else ""


def _tools(name: str) -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise VideoError(
            f"{name}: masks in JSON need pycocotools; pip install -e '.[masks]'"
        ) from error
    return mask
