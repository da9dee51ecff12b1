"""Write a procedural scene as an H.264 video `X.mp4` with its masks beside it in `X.masks.h5`.

The sidecar holds, per frame of the video, `masks` (n, h, w) uint8 label maps with 0 for background,
`pts_ns` (n) int64 and `gap` (n) bool; its attributes name the scene and its configuration.

Both files are written under another name, and the video is the last to get its own:

    X.mp4.partial, X.masks.h5.partial  ->  remove old X.mp4  ->  X.masks.h5  ->  X.mp4

so wherever the writer is killed, a video that is there has the masks that belong to it.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import h5py
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import UInt8

from ingest import masks
from ingest.frame import Frames
from ingest.scenes import Scene, scene_blocks, scene_name

# 4:4:4, because halved chroma would smear the colour of small objects over their outlines
_PIXEL_FORMAT = "yuv444p"
# without cpu-independent, about every fourth encode of one scene came out as other bytes (av 18.1)
_X264_OPTIONS = {
    "preset": "veryfast",
    "crf": "8",
    "g": "60",
    "x264-params": "cpu-independent=1",
}
_BT709 = 1  # of the matrix, the primaries and the transfer curve alike, in ISO/IEC 23091-2


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedScene:
    """The pair of files that `render_scene` wrote."""

    video: Path
    sidecar: Path
    num_frames: int


def render_scene(
    config: Scene, path: Path, *, progress: Callable[[int], None] | None = None
) -> RenderedScene:
    """Render the scene to the video `path`, ending in .mp4, and its sidecar; replaces either.

    `progress` is called with the number of frames written so far. Raises ValueError for another
    ending, OSError where the folder cannot be written to. If drawing or encoding fails, the pair
    that was there before stays.
    """
    if path.suffix != ".mp4":
        raise ValueError(f"{path}: a scene is written as .mp4, got {path.suffix or 'no ending'}")
    sidecar = path.with_suffix(masks.SUFFIX)
    with _partial(path) as video_partial, _partial(sidecar) as sidecar_partial:
        with (
            _VideoWriter(video_partial, fps=config.fps, size=config.size) as video,
            _SidecarWriter(sidecar_partial, config) as labels,
        ):
            for block in scene_blocks(config):
                video.write(block.images)
                labels.write(block)
                if progress is not None:
                    progress(labels.written)
        _publish(video_partial, path, sidecar_partial, sidecar)
    return RenderedScene(video=path, sidecar=sidecar, num_frames=config.num_frames)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """The name to write beside; removed on the way out if it has not been renamed."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _publish(video_partial: Path, video: Path, sidecar_partial: Path, sidecar: Path) -> None:
    _sync(video_partial)
    _sync(sidecar_partial)
    video.unlink(missing_ok=True)
    _sync(video.parent)
    sidecar_partial.replace(sidecar)
    video_partial.replace(video)
    _sync(video.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _VideoWriter:
    """H.264 in BT.709 and limited range, tagged so, that all readers turn it into the same RGB."""

    def __init__(self, path: Path, *, fps: int, size: int) -> None:
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=fps, options=dict(_X264_OPTIONS))
        self._stream.width = self._stream.height = size
        self._stream.pix_fmt = _PIXEL_FORMAT
        context = self._stream.codec_context
        context.thread_count = 1  # frames this small only wait for each other
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._reformatter = VideoReformatter()
        self._written = 0

    def __enter__(self) -> "_VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def write(self, images: UInt8[np.ndarray, "n h w 3"]) -> None:
        """Encode the images, one frame period after the other."""
        for image in images:
            frame = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(image, format="rgb24"),
                format=_PIXEL_FORMAT,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            frame.pts = self._written
            self._container.mux(self._stream.encode(frame))
            self._written += 1


class _SidecarWriter:
    """The file that `ingest.masks` reads, filled front to back."""

    def __init__(self, path: Path, config: Scene) -> None:
        length, size = config.num_frames, config.size
        self._file = h5py.File(path, "w")
        self._file.attrs["scene"] = scene_name(config)
        self._file.attrs["config"] = json.dumps(asdict(config))
        self._masks = self._file.create_dataset(
            "masks",
            shape=(length, size, size),
            dtype=np.uint8,
            chunks=(min(length, 16), size, size),
            compression="gzip",
            compression_opts=1,
        )
        self._pts_ns = self._file.create_dataset("pts_ns", shape=(length,), dtype=np.int64)
        self._gap = self._file.create_dataset("gap", shape=(length,), dtype=np.bool_)
        self.written = 0

    def __enter__(self) -> "_SidecarWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, block: Frames) -> None:
        """Append the masks, times and gaps of the frames."""
        here = slice(self.written, self.written + len(block.pts_ns))
        self._masks[here] = block.masks
        self._pts_ns[here] = block.pts_ns
        self._gap[here] = block.gap
        self.written = here.stop
