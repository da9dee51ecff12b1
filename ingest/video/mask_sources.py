"""Where the masks of a source are: next to it, in a data set's own folder, or where one says."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.addresses import is_address
from ingest.decoding.container import open_container, shown_packets, video_stream
from ingest.errors import SourceStopped, VideoError
from ingest.video.masks import MaskSidecar, VideoMasks, find_sidecar
from ingest.video.paths import FRAMES_FOLDER, folders, has_masks, label_files

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ingest.video.annotations import Annotations

_ANNOTATIONS = ("Annotations", "Annotations_unsupervised")
_JSON_FILE = "instances.json"
_SIDECAR_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, slots=True)
class MaskSource:
    """The masks of one source."""

    path: Path
    """A folder of label pictures, a JSON file in COCO's format, or an HDF5 sidecar."""
    video: str = ""
    """Which video of a JSON file."""

    @property
    def is_sidecar(self) -> bool:
        """Whether it is the HDF5 file that scenes and exports have."""
        return self.path.suffix in _SIDECAR_SUFFIXES

    def files(self) -> list[Path]:
        """All files that make it up."""
        return label_files(self.path) if self.path.is_dir() else [self.path]


def masks_of_images(folder: Path) -> MaskSource | None:
    """What belongs to a folder of images: NAME_mask.png in it, or what its data set has.

    DAVIS and YouTube-VOS: JPEGImages/.../NAME and Annotations/.../NAME; YouTube-VIS: instances.json
    next to JPEGImages, or a file called like their folder next to that. The latter may be there for
    anything else: where it is not in COCO's format, that is a warning.
    """
    if has_masks(folder):
        return MaskSource(folder)
    above = next((p for p in folder.parents if p.name == FRAMES_FOLDER), None)
    if above is None:
        return None
    for name in _ANNOTATIONS:
        pictures = above.parent / name / folder.relative_to(above)
        if pictures.is_dir() and label_files(pictures):
            return MaskSource(pictures)
    from ingest.video.coco import coco_videos  # few sources have masks in a data set

    inside = above.parent / _JSON_FILE
    if inside.is_file() and folder.name in coco_videos(inside):
        return MaskSource(inside, folder.name)
    root = above.parent.resolve()
    outside = root.with_name(f"{root.name}.json")
    if outside.is_file() and folder.name in _videos_if_any(outside, outside.stat().st_mtime_ns):
        return MaskSource(outside, folder.name)
    return None


@functools.lru_cache(maxsize=1)  # one line for all the folders of a data set
def _videos_if_any(path: Path, _mtime_ns: int) -> frozenset[str]:
    from ingest.video.coco import coco_videos

    try:
        return frozenset(coco_videos(path))
    except VideoError as error:
        log.warning("%s; no masks are taken from it, and --masks names others", error)
        return frozenset()


def named_masks(path: Path, stem: str, *, alone: bool) -> MaskSource:
    """The masks of a source called `stem` in what was named as the masks of all, or of it `alone`.

    Raises VideoError where there are none for it.
    """
    if not path.exists():
        raise VideoError(f"{path}: no such file or folder; check the path of --masks")
    if path.is_dir():
        if alone and label_files(path):
            return MaskSource(path)
        for folder in (path / stem, *(within / stem for within in folders(path))):
            if folder.is_dir() and label_files(folder):
                return MaskSource(folder)
        raise VideoError(
            f"{path}: no folder {stem!r} of PNG files in it; name the folder of the masks of "
            f"{stem!r}, or ingest it without --masks"
        )
    if path.suffix == ".json":
        from ingest.video.coco import coco_videos

        videos = list(coco_videos(path))
        if stem in videos:
            return MaskSource(path, stem)
        if alone and len(videos) == 1:
            return MaskSource(path, videos[0])
        raise VideoError(
            f"{path}: no video {stem!r} in it, but {len(videos)} others, such as {videos[0]!r}; "
            "name the source as the file does, or ingest it without --masks"
        )
    if not (alone and path.suffix in _SIDECAR_SUFFIXES):
        raise VideoError(
            f"{path}: not the masks of {stem!r}; name a folder of PNG files or a JSON file, or "
            "with one video its .masks.h5"
        )
    return MaskSource(path)


def open_annotations(source: MaskSource) -> Annotations:
    """The annotations of a folder of images."""
    if source.is_sidecar:
        raise VideoError(f"{source.path}: the masks of a video, not of pictures; name others")
    if source.path.is_dir():
        from ingest.video.annotations import LabelPictures  # few sources need Pillow

        return LabelPictures(source.path)
    from ingest.video.coco import CocoAnnotations

    return CocoAnnotations(source.path, source.video)


def open_video_masks(
    video: str,
    source: MaskSource | None,
    *,
    track: int | None = None,
    should_stop: Callable[[], bool],
) -> VideoMasks | None:
    """The masks of a track of a video: those named, those of its sidecar, or none.

    A sidecar belongs to the main track, so it is left alone where a `track` is asked for.
    """
    sidecar = source.path if source is not None else None
    if source is None and track is None and not is_address(video):
        sidecar = find_sidecar(Path(video))
    if source is None or source.is_sidecar:
        return None if sidecar is None else MaskSidecar(sidecar)
    from ingest.video.annotations import NumberedMasks

    annotations = open_annotations(source)
    with closing(open_container(video)) as container:
        stream = video_stream(container, video, track=track)
        frames = 0
        for packet in shown_packets(container, stream):
            if should_stop():
                raise SourceStopped(video)
            frames += not packet.is_discard
        height, width = stream.height, stream.width
    return NumberedMasks(annotations, frames=frames, height=height, width=width)
