"""What only PyAV is asked for: damaged files, and colours."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.container import MAX_BAD_PACKETS
from ingest.errors import VideoError
from ingest.pyav_reader import PyAVReader


def damaged(path: Path, media, *, frames: int = 120) -> Path:
    """A video whose packets 40..43 are zeros; every frame is a key frame, so no others suffer."""
    media.video(path, frames, gop=1, options={"bf": "0"})
    return media.overwrite_packets(path, range(40, 44))


def test_damaged_packets_are_counted_and_leave_a_gap(media, tmp_path):
    with PyAVReader(str(damaged(tmp_path / "damaged.mp4", media)), size=32) as reader:
        frames = list(reader.frames())
    counters = reader.counters
    assert counters.corrupt_packets + counters.dropped == 4
    assert counters.stored == 116
    assert counters.decoded == counters.stored + counters.dropped
    after = next(b for a, b in pairwise(frames) if b.pts_ns - a.pts_ns > 40_000_000)
    assert after.gap
    assert after.pts_ns == 44 * 40_000_000


def test_frames_around_the_damage_are_the_undamaged_ones(media, tmp_path):
    path = media.video(tmp_path / "video.mp4", 120, gop=1, options={"bf": "0"})
    with PyAVReader(str(path), size=32) as reader:
        whole = {frame.pts_ns: frame.image for frame in reader.frames()}
    media.overwrite_packets(path, range(40, 44))
    with PyAVReader(str(path), size=32) as reader:
        for frame in reader.frames():
            np.testing.assert_array_equal(frame.image, whole[frame.pts_ns])


def test_a_file_whose_rest_is_damaged_ends_with_an_error(media, tmp_path):
    count = MAX_BAD_PACKETS + 50
    path = media.video(tmp_path / "dead.mp4", count, gop=1, options={"bf": "0"})
    media.overwrite_packets(path, range(20, count))
    with (
        PyAVReader(str(path), size=32) as reader,
        pytest.raises(VideoError, match=f"{MAX_BAD_PACKETS} packets in a row.* after 20 frames"),
    ):
        list(reader.frames())


def test_a_file_of_which_nothing_decodes_is_refused_when_opened(media, tmp_path):
    path = media.video(tmp_path / "dead.mp4", 30, gop=1)
    media.overwrite_packets(path, range(30))
    with pytest.raises(VideoError, match="no frame in it decodes"):
        PyAVReader(str(path))


def test_a_stream_cut_in_its_middle_gives_what_is_there(media, tmp_path):
    path = media.video(tmp_path / "stream.ts", 120)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with PyAVReader(str(path), size=32) as reader:
        assert 20 < len(list(reader.frames())) < 120


def flat_video(path: Path, yuv: tuple[int, int, int], *, matrix: int, full: bool) -> Path:
    """A video of one colour, given in the planes of the codec and lossless."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1
        planes = [np.full(64 * 64, yuv[0]), np.full(32 * 32, yuv[1]), np.full(32 * 32, yuv[2])]
        pixels = np.concatenate(planes).astype(np.uint8).reshape(96, 64)
        frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def expected_rgb(yuv: tuple[int, int, int], *, red: float, blue: float, full: bool) -> np.ndarray:
    """Y'CbCr to R'G'B' from the definition, with the luma weights of red and blue."""
    y, cb, cr = yuv[0] / 255, (yuv[1] - 128) / 255, (yuv[2] - 128) / 255
    if not full:
        y, cb, cr = (yuv[0] - 16) / 219, (yuv[1] - 128) / 224, (yuv[2] - 128) / 224
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.array([r, g, b]) * 255, 0, 255)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (2, 0.299, 0.114)]
)
@pytest.mark.parametrize("yuv", [(90, 100, 190), (120, 170, 90), (200, 128, 128)])
def test_colours_follow_the_matrix_and_range_of_the_file(tmp_path, yuv, matrix, red, blue, full):
    path = flat_video(tmp_path / "flat.mp4", yuv, matrix=matrix, full=full)
    with PyAVReader(str(path), size=32) as reader:
        colour = next(iter(reader.frames())).image[16, 16]
    np.testing.assert_allclose(colour, expected_rgb(yuv, red=red, blue=blue, full=full), atol=3)


def test_frames_that_change_size_are_refused_without_a_size_and_fitted_with_one(media, tmp_path):
    parts = [
        media.video(tmp_path / f"{width}.ts", list(media.square(20, width=width)))
        for width in (64, 96)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with PyAVReader(str(path), size=32) as reader:
        assert len(list(reader.frames())) == 40
    with (
        PyAVReader(str(path), size=None) as reader,
        pytest.raises(VideoError, match="change from 64x48 to 96x48"),
    ):
        list(reader.frames())
