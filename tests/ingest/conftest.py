"""Real media for the tests, made with the encoders that PyAV's wheel carries."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from priority import ordinary_priority


def moving_square(count: int, *, height: int = 48, width: int = 64) -> Iterable[np.ndarray]:
    """A bright square over a smooth background; every frame differs from every other one."""
    ramp = np.linspace(40, 120, width, dtype=np.uint8)[None, :, None]
    for index in range(count):
        image = np.broadcast_to(ramp, (height, width, 3)).copy()
        row, column = (3 * index) % (height - 12), (5 * index) % (width - 12)
        image[row : row + 12, column : column + 12] = (220, 60 + index % 128, 30)
        yield image


class Media:
    """Writes videos; every argument that is left out is the simplest there is."""

    square = staticmethod(moving_square)

    @staticmethod
    def video(
        path: Path,
        images: Iterable[np.ndarray] | int = 60,
        *,
        codec: str = "libx264",
        fps: int = 25,
        pts_ms: Sequence[int] | None = None,
        gop: int = 12,
        rotation: int | None = None,
        matrix: tuple[int, int, int, int] | None = None,
        pixel_aspect: Fraction | None = None,
        title: str | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        """Encode RGB images, at a constant rate or at the given times.

        A `matrix` (a, b, c, d) asks players to show pixel (x, y) at (a x + c y, b x + d y).
        """
        if isinstance(images, int):
            images = moving_square(images)
        images = list(images)
        with ordinary_priority(), av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps, options=options or {})
            if title is not None:
                container.metadata["title"] = title
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.gop_size = gop
            if rotation is not None:
                stream.set_display_rotation(rotation)
            if matrix is not None:
                a, b, c, d = (value << 16 for value in matrix)
                stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if pts_ms is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for index, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                if pts_ms is not None:
                    frame.pts, frame.time_base = pts_ms[index], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    @staticmethod
    def overwrite_packets(path: Path, numbers: range) -> Path:
        """Fill packets of a video with zeros; their place in the file stays."""
        with av.open(str(path)) as container:
            packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
        data = bytearray(path.read_bytes())
        for number in numbers:
            position, size = packets[number]
            assert position is not None
            data[position : position + size] = bytes(size)
        path.write_bytes(data)
        return path

    @staticmethod
    def audio(path: Path) -> Path:
        """Encode one second of silence, and no picture."""
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=44100)
            for index in range(43):
                frame = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts = 44100, 1024 * index
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    @staticmethod
    def masks(video: Path, masks: np.ndarray, pts_ns: np.ndarray, gap: np.ndarray) -> Path:
        """Write a masks sidecar next to a video."""
        path = video.with_suffix(".masks.h5")
        with h5py.File(path, "w") as file:
            file.create_dataset("masks", data=masks, chunks=True, compression="gzip")
            file.create_dataset("pts_ns", data=pts_ns)
            file.create_dataset("gap", data=gap)
        return path

    @staticmethod
    def files(folder: Path) -> dict[str, bytes]:
        """Every file under a folder with its bytes."""
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def media() -> Media:
    return Media()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of 64x48 at 25 per second, H.264 with B-frames."""
    return Media.video(tmp_path_factory.mktemp("clip") / "clip.mp4")
