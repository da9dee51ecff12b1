"""The right reader for a source of frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from ingest.errors import VideoError
from ingest.store.records import Fit, RecordSettings, Size
from ingest.video.bucket import is_object, readable
from ingest.video.mask_sources import open_annotations, open_video_masks
from ingest.video.pyav_reader import PyAVReader
from ingest.video.reader import VideoReader
from ingest.video.sources import SourceSpec, expand

ReaderName = Literal["auto", "pyav", "decord"]


def open_video(
    path: str | Path,
    *,
    size: Size = 128,
    fit: Fit = "crop",
    fps: float | None = None,
    reader: str = "auto",
) -> VideoReader:
    """Open a video file or a folder of images.

    Frames are squares of `size` pixels, of (width, height), or as large as the source for None.
    Raises VideoError for anything that has no frames to give.
    """
    specs = expand(str(path))
    if len(specs) != 1:
        names = ", ".join(str(spec) for spec in specs)
        raise VideoError(f"{path}: holds several recordings ({names}); name one of them")
    return open_source(specs[0], RecordSettings(size=size, fit=fit, fps=fps, reader=reader))


def open_source(
    spec: SourceSpec,
    settings: RecordSettings,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> VideoReader:
    """Open one source as `settings` say; SourceStopped when it `should_stop` and takes long.

    What reads pictures and HDF5 files is imported for those.
    """
    if settings.reader not in get_args(ReaderName):
        names = ", ".join(get_args(ReaderName))
        raise VideoError(f"{spec}: no reader {settings.reader!r}; choose one of {names}")
    path, size, fit, fps = readable(spec.location), settings.size, settings.fit, settings.fps
    if spec.kind == "images":
        from ingest.video.frames_reader import PictureMasks, PictureReader
        from ingest.video.image_folder import ImageFolder

        pictures = ImageFolder(spec.path)
        named = None
        if spec.masks is not None:
            named = PictureMasks(open_annotations(spec.masks), pictures.names, str(spec))
        return PictureReader(pictures, size=size, fit=fit, fps=fps, masks=named)
    if spec.kind == "archive":
        from ingest.video.frames_reader import FrameArchive, PictureReader

        archive = FrameArchive(spec.path, spec.part)
        return PictureReader(archive, size=size, fit=fit, fps=fps)
    if settings.reader == "decord" and (spec.track or spec.episode):
        raise VideoError(f"{spec}: decord reads the main track as a whole; use --reader pyav")
    if settings.reader == "decord" and is_object(spec.location):
        # its process is told what to read where all users of the machine see it
        raise VideoError(f"{spec}: decord reads no object storage; use --reader pyav")
    if spec.episode is not None:
        from ingest.video.episode_reader import EpisodeReader

        whole = PyAVReader(path, size=size, fit=fit, fps=fps, should_stop=should_stop)
        return EpisodeReader(whole, spec.episode)
    masks = open_video_masks(path, spec.masks, track=spec.track, should_stop=should_stop)
    try:
        if settings.reader == "decord":
            from ingest.video.decord_reader import DecordReader  # it has few wheels

            return DecordReader(
                path, size=size, fit=fit, fps=fps, masks=masks, should_stop=should_stop
            )
        return PyAVReader(
            path,
            size=size,
            fit=fit,
            fps=fps,
            track=spec.track,
            masks=masks,
            should_stop=should_stop,
        )
    except BaseException:
        if masks is not None:
            masks.close()
        raise
