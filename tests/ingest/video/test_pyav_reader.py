"""What only PyAV is asked for: damaged files, and colours."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from priority import ordinary_priority

from ingest.decoding.decoder import MAX_BAD_PACKETS
from ingest.errors import VideoError
from ingest.video.pyav_reader import PyAVReader


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


@pytest.mark.parametrize("options", [{"bf": "0", "g": "1"}, {"bf": "0"}, {"bf": "3"}])
def test_a_file_whose_rest_is_damaged_ends_with_an_error(options, media, tmp_path):
    count = MAX_BAD_PACKETS + 50
    path = media.video(tmp_path / "dead.mp4", count, options=options)
    media.overwrite_packets(path, range(20, count))
    with (
        PyAVReader(str(path), size=32) as reader,
        pytest.raises(VideoError, match=f"{count - 20} packets in a row.* after 20 frames"),
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


CODED = {  # how one colour is kept without loss, or nearly
    "H.264": ("libx264", "yuv420p", {"qp": "0"}),
    "H.264, 10 bit": ("libx264", "yuv420p10le", {"qp": "0"}),
    "HEVC": ("libx265", "yuv420p", {"x265-params": "lossless=1:log-level=none"}),
    "HEVC, 10 bit": ("libx265", "yuv420p10le", {"x265-params": "lossless=1:log-level=none"}),
    "VP9": ("libvpx-vp9", "yuv420p", {"lossless": "1"}),
    "AV1, 10 bit": ("libsvtav1", "yuv420p10le", {"crf": "1", "svtav1-params": "lp=1"}),
}
UNTAGGED = 2


def flat_video(
    path: Path,
    yuv: tuple[float, float, float],
    *,
    matrix: int = UNTAGGED,
    full: bool | None = None,
    coded: str = "H.264",
    side: int = 64,
) -> Path:
    """A video of one colour, given in the planes of the codec, of which 255 is the highest."""
    encoder, pixel_format, options = CODED[coded]
    color_range = 0 if full is None else 2 if full else 1
    with ordinary_priority(), av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = side, side, pixel_format
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = color_range
        frame = av.VideoFrame(side, side, pixel_format)
        ten_bit = pixel_format.endswith("10le")
        for plane, level in zip(frame.planes, yuv, strict=True):
            dtype, scale = (np.dtype("<u2"), 4) if ten_bit else (np.dtype("u1"), 1)
            samples = plane.buffer_size // dtype.itemsize
            plane.update(np.full(samples, round(level * scale), dtype).tobytes())
        frame.colorspace, frame.color_range = matrix, color_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def expected_rgb(
    yuv: tuple[float, float, float], *, red: float, blue: float, full: bool
) -> np.ndarray:
    """Y'CbCr to R'G'B' from the definition, with the luma weights of red and blue."""
    y, cb, cr = yuv[0] / 255, (yuv[1] - 128) / 255, (yuv[2] - 128) / 255
    if not full:
        y, cb, cr = (yuv[0] - 16) / 219, (yuv[1] - 128) / 224, (yuv[2] - 128) / 224
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.array([r, g, b]) * 255, 0, 255)


def colour_of(path: Path) -> np.ndarray:
    with PyAVReader(str(path), size=32) as reader:
        return next(iter(reader.frames())).image[16, 16]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (UNTAGGED, 0.299, 0.114)],
)
@pytest.mark.parametrize("yuv", [(90, 100, 190), (120, 170, 90), (200, 128, 128)])
def test_colours_follow_the_matrix_and_range_of_the_file(tmp_path, yuv, matrix, red, blue, full):
    path = flat_video(tmp_path / "flat.mp4", yuv, matrix=matrix, full=full)
    expected = expected_rgb(yuv, red=red, blue=blue, full=full)
    np.testing.assert_allclose(colour_of(path), expected, atol=3)


@pytest.mark.parametrize("coded", CODED)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114)])
def test_colours_are_the_same_in_every_codec_and_depth(tmp_path, coded, full, matrix, red, blue):
    yuv = (90.25, 100.5, 189.75) if coded.endswith("10 bit") else (90, 100, 190)
    path = flat_video(tmp_path / "flat.mkv", yuv, matrix=matrix, full=full, coded=coded)
    expected = expected_rgb(yuv, red=red, blue=blue, full=full)
    np.testing.assert_allclose(colour_of(path), expected, atol=3)


@pytest.mark.parametrize(("coded", "side"), [*((coded, 64) for coded in CODED), ("H.264", 1088)])
def test_what_bears_no_tags_is_taken_for_bt_601_in_limited_range(tmp_path, coded, side):
    yuv = (90, 100, 190)
    path = flat_video(tmp_path / "flat.mkv", yuv, coded=coded, side=side)
    expected = expected_rgb(yuv, red=0.299, blue=0.114, full=False)
    np.testing.assert_allclose(colour_of(path), expected, atol=3)


def test_motion_jpeg_has_the_full_range(media, tmp_path):
    image = np.full((64, 64, 3), (230, 40, 90), np.uint8)
    path = media.video(tmp_path / "flat.avi", [image], codec="mjpeg", options={"qmin": "1"})
    np.testing.assert_allclose(colour_of(path), image[0, 0], atol=6)


def test_frames_that_change_size_are_refused_without_a_size_and_fitted_with_one(media, tmp_path):
    parts = [
        media.video(tmp_path / f"{width}.ts", list(media.square(20, width=width)))
        for width in (64, 96)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with PyAVReader(str(path), size=32) as reader:
        frames = list(reader.frames())
        assert reader.counters.corrupt_packets + reader.counters.dropped == 2
    assert [frame.gap for frame in frames] == [True] + [False] * 17 + [True] + [False] * 19
    with (
        PyAVReader(str(path), size=None) as reader,
        pytest.raises(VideoError, match="change from 64x48 to 96x48"),
    ):
        list(reader.frames())
