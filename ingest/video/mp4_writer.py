"""Write frames as an H.264 video `X.mp4`, with their masks, if any, next to it in `X.masks.h5`.

The sidecar holds, per frame of the video, `masks` (n, h, w) uint8 label maps with 0 for background,
`pts_ns` (n) int64 and `gap` (n) bool; its attributes say where the frames come from.

Both files are written under hidden names, and the video is the last to get its own:

    .X.mp4.*.partial, .X.masks.h5.*.partial  ->  remove old X.mp4  ->  X.masks.h5  ->  X.mp4

so wherever the writer is killed, a video that is there has the masks that belong to it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from jaxtyping import Int64

from ingest.disk.durable import partial_file, sync_file, sync_folder
from ingest.disk.hdf5 import NewFile
from ingest.disk.signals import uninterrupted
from ingest.frame import Frames
from ingest.store.output import output_fault
from ingest.video.masks import sidecar_path

# 4:4:4, because halved chroma would smear the colour of small objects over their outlines
_EXACT_FORMAT, _PLAYABLE_FORMAT = "yuv444p", "yuv420p"
# without cpu-independent, about every fourth encode of one scene came out as other bytes (av 18.1)
_X264_OPTIONS = {
    "preset": "veryfast",
    "g": "60",
    "x264-params": "cpu-independent=1",
}
_EXACT_CRF = "8"  # at 16, what moves over a textured background comes out at 31 dB; here at 37
_PLAYABLE_CRF = "20"  # to be looked at: a fourth of the size that 8 gives, at 39 instead of 43 dB
_BT709 = 1  # of the matrix, the primaries and the transfer curve alike, in ISO/IEC 23091-2
_SMALL = 256 * 256


def video_fault(path: Path, *, what: str, overwrite: bool) -> str | None:
    """Why `what` and masks may not be written to `path`, in one line; None where they may."""
    return output_fault(path, sidecar_path(path), what=what, endings=(".mp4",), overwrite=overwrite)


def ticks(pts_ns: Int64[np.ndarray, " n"], per_second: int) -> Int64[np.ndarray, " n"]:
    """Times in whole ticks of 1/`per_second` seconds, the nearest ones."""
    seconds, rest = np.divmod(pts_ns, 1_000_000_000)  # their product with a rate would overflow
    return seconds * per_second + (rest * per_second + 500_000_000) // 1_000_000_000


@contextmanager
def write_mp4(
    path: Path,
    *,
    height: int,
    width: int,
    length: int,
    fps: int | Fraction,
    ticks_per_second: int,
    has_masks: bool,
    attributes: Mapping[str, str] | None = None,
    playable: bool = False,
) -> Iterator[Callable[[Frames], None]]:
    """A function that adds frames; the files replace older ones of their names when all is written.

    `fps` is the usual rate; what counts are the times of the frames, in ticks. A sidecar takes
    `length` frames and bears the `attributes`; without masks, one that is there is removed.
    `playable` is for looking at, in any player: chroma is halved, so that the size must be even,
    and files are smaller. Raises OSError where the folder cannot be written to; then, and where the
    caller fails, the files that were there before stay.
    """
    sidecar = sidecar_path(path)
    with partial_file(path) as video_partial, partial_file(sidecar) as sidecar_partial:
        with (
            _VideoWriter(
                video_partial,
                height=height,
                width=width,
                fps=fps,
                ticks_per_second=ticks_per_second,
                pixel_format=_PLAYABLE_FORMAT if playable else _EXACT_FORMAT,
                crf=_PLAYABLE_CRF if playable else _EXACT_CRF,
            ) as video,
            NewFile(sidecar_partial) if has_masks else nullcontext() as new,
        ):
            labels = new and _SidecarWriter(new, (length, height, width), attributes or {})

            def write(frames: Frames) -> None:
                video.write(frames)
                if labels is not None:
                    labels.write(frames)

            yield write
        _publish(video_partial, path, sidecar_partial if has_masks else None, sidecar)


def _publish(video_partial: Path, video: Path, sidecar_partial: Path | None, sidecar: Path) -> None:
    """Give both files their names, in the order that the module's docstring shows."""
    sync_file(video_partial)
    if sidecar_partial is not None:
        sync_file(sidecar_partial)
    with uninterrupted():
        video.unlink(missing_ok=True)
        sync_folder(video.parent)
        if sidecar_partial is not None:
            sidecar_partial.replace(sidecar)
        else:
            sidecar.unlink(missing_ok=True)
        video_partial.replace(video)
        sync_folder(video.parent)


class _VideoWriter:
    """H.264 in BT.709 and limited range, tagged so, that all readers turn it into the same RGB."""

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        fps: int | Fraction,
        ticks_per_second: int,
        pixel_format: str,
        crf: str,
    ) -> None:
        # the start of a video is kept in units of the movie, which are milliseconds if left alone
        muxer = {"movie_timescale": str(ticks_per_second)}
        self._container = av.open(str(path.absolute()), "w", format="mp4", options=muxer)
        self._stream = self._container.add_stream(
            "libx264", rate=fps, options=_X264_OPTIONS | {"crf": crf}
        )
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = self._pixel_format = pixel_format
        context = self._stream.codec_context
        context.time_base = Fraction(1, ticks_per_second)
        if height * width <= _SMALL:
            context.thread_count = 1  # frames this small only wait for each other
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._ticks_per_second = ticks_per_second
        self._reformatter = VideoReformatter()

    def __enter__(self) -> "_VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def write(self, frames: Frames) -> None:
        """Encode the images, each at its time."""
        for image, pts in zip(
            frames.images, ticks(frames.pts_ns, self._ticks_per_second), strict=True
        ):
            frame = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(image, format="rgb24"),
                format=self._pixel_format,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            frame.pts, frame.time_base = int(pts), Fraction(1, self._ticks_per_second)
            self._container.mux(self._stream.encode(frame))


class _SidecarWriter:
    """The file that `ingest.video.masks` reads, filled front to back."""

    def __init__(
        self, new: NewFile, shape: tuple[int, int, int], attributes: Mapping[str, str]
    ) -> None:
        length, height, width = shape
        self._new = new
        with new.filling() as file:
            file.attrs.update(attributes)
            self._masks = file.create_dataset(
                "masks",
                shape=shape,
                dtype=np.uint8,
                chunks=(min(length, 16), height, width),
                compression="gzip",
                compression_opts=1,
            )
            self._pts_ns = file.create_dataset("pts_ns", shape=(length,), dtype=np.int64)
            self._gap = file.create_dataset("gap", shape=(length,), dtype=np.bool_)
        self._written = 0

    def write(self, frames: Frames) -> None:
        """Append the masks, times and gaps of the frames."""
        here = slice(self._written, self._written + len(frames))
        with self._new.filling():
            self._masks[here] = frames.masks
            self._pts_ns[here] = frames.pts_ns
            self._gap[here] = frames.gap
        self._written = here.stop
