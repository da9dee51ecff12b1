"""One contract for both readers of video files."""

import platform
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ingest.errors import VideoError
from ingest.frame import Frame
from ingest.video.open import open_video
from ingest.video.reader import VideoReader

HAS_DECORD = sys.platform == "linux" and platform.machine() == "x86_64"
READERS = [
    "pyav",
    pytest.param("decord", marks=pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel")),
]


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def all_frames(path: Path, reader: str, **kwargs) -> list[Frame]:
    with open_video(path, reader=reader, **kwargs) as video:
        assert isinstance(video, VideoReader)
        return list(video.frames())


def test_every_frame_comes_once_in_order_at_its_time(name, clip):
    with open_video(clip, size=32, reader=name) as video:
        frames = list(video.frames())
    assert [frame.pts_ns for frame in frames] == [40_000_000 * index for index in range(60)]
    assert [frame.gap for frame in frames] == [True] + [False] * 59
    assert video.counters.decoded == video.counters.stored == 60
    assert {frame.image.shape for frame in frames} == {(32, 32, 3)}


def test_frames_look_like_what_was_encoded(name, clip, media):
    frames = all_frames(clip, name, size=None)
    for frame, original in zip(frames, media.square(60), strict=True):
        assert frame.image.shape == original.shape
        assert np.abs(frame.image.astype(int) - original).mean() < 6


def test_info_tells_what_comes_out(name, clip):
    with open_video(clip, size=32, fps=12.5, reader=name) as video:
        info = video.info
        frames = list(video.frames())
    assert (info.height, info.width) == (32, 32)
    assert info.reader == name
    assert (info.codec, info.fps) == ("h264", 12.5)
    assert info.expected_frames == len(frames) == 30


@pytest.mark.parametrize("start", [0, 1, 11, 12, 13, 30, 47, 59])
def test_a_pass_from_any_frame_gives_the_same_frames(name, clip, start):
    whole = all_frames(clip, name, size=32)
    with open_video(clip, size=32, reader=name) as video:
        part = list(video.frames(from_pts_ns=whole[start].pts_ns))
        assert video.counters.stored == 60 - start
    assert [frame.pts_ns for frame in part] == [frame.pts_ns for frame in whole[start:]]
    for frame, expected in zip(part, whole[start:], strict=True):
        np.testing.assert_array_equal(frame.image, expected.image)
    assert [frame.gap for frame in part] == [True] + [False] * (59 - start)


def test_a_second_pass_starts_anew(name, clip):
    with open_video(clip, size=32, reader=name) as video:
        first = next(iter(video.frames()))
        frames = list(video.frames())
        assert video.counters.decoded == 60
    np.testing.assert_array_equal(first.image, frames[0].image)


def test_resampling_leaves_frames_out_and_counts_them(name, clip):
    whole = all_frames(clip, name, size=32)
    with open_video(clip, size=32, fps=5.0, reader=name) as video:
        kept = list(video.frames())
        assert video.counters.stored == 12
        assert video.counters.resampled == 48
    np.testing.assert_array_equal(
        np.stack([frame.image for frame in kept]), np.stack([f.image for f in whole[::5]])
    )
    assert sum(frame.gap for frame in kept) == 1


def test_times_of_a_file_without_a_constant_rate_are_exact(name, media, tmp_path):
    times = np.cumsum([40, 20, 60, 33, 47] * 8).tolist()
    path = media.video(tmp_path / "vfr.mp4", 40, pts_ms=times)
    frames = all_frames(path, name, size=32)
    assert [frame.pts_ns / 1e6 - frames[0].pts_ns / 1e6 for frame in frames] == [
        time - times[0] for time in times
    ]


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg", "libx264"])
def test_other_codecs_work_as_well(name, codec, media, tmp_path):
    path = media.video(tmp_path / "video.mkv", 20, codec=codec)
    assert len(all_frames(path, name, size=32)) == 20


def quadrants() -> np.ndarray:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    return image


@pytest.mark.parametrize("rotation", [90, -90])
def test_frames_come_upright(name, rotation, media, tmp_path):
    path = media.video(tmp_path / "turned.mp4", [quadrants()] * 3, rotation=rotation)
    upright = np.rot90(quadrants(), rotation // 90)
    frames = all_frames(path, name, size=None)
    assert frames[0].image.shape == upright.shape
    assert np.abs(frames[0].image.astype(int) - upright).mean() < 4
    for fit in ("crop", "pad", "stretch"):
        for size in (32, (28, 40)) if fit == "crop" else (32,):
            small = all_frames(path, name, size=size, fit=fit)[0].image
            assert small[10, 8].argmax() == upright[10, 8].argmax()
            assert small[-10, 8].argmax() == upright[-10, 8].argmax()


ORIENTATIONS = {  # display matrix: what players show
    (1, 0, 0, 1): lambda image: image,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, 1, -1, 0): lambda image: np.rot90(image, 3),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (0, 1, 1, 0): lambda image: np.transpose(image, (1, 0, 2)),
    (0, -1, -1, 0): lambda image: np.rot90(np.transpose(image, (1, 0, 2)), 2),
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_frames_and_masks_are_shown_as_their_display_matrix_asks(matrix, media, tmp_path):
    path = media.video(tmp_path / "turned.mp4", [quadrants()] * 3, matrix=matrix)
    labels = quadrants()[..., 0] // 250 + 2 * (quadrants()[..., 1] // 250)
    times = np.arange(3) * 40_000_000
    media.masks(path, np.stack([labels] * 3).astype(np.uint8), times, times == 0)
    frame = all_frames(path, "pyav", size=None)[0]
    shown = ORIENTATIONS[matrix](quadrants())
    assert frame.image.shape == shown.shape
    assert np.abs(frame.image.astype(int) - shown).mean() < 4
    np.testing.assert_array_equal(frame.masks, shown[..., 0] // 250 + 2 * (shown[..., 1] // 250))


@pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel")
@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_decord_turns_by_quarters_and_refuses_what_it_gets_wrong(matrix, media, tmp_path):
    path = media.video(tmp_path / "turned.mp4", [quadrants()] * 3, matrix=matrix)
    a, b, c, d = matrix
    if a < 0 or a * d < b * c:
        with pytest.raises(VideoError, match=r"(upside down|mirrored).*use --reader pyav"):
            open_video(path, reader="decord")
    else:
        shown = ORIENTATIONS[matrix](quadrants())
        image = all_frames(path, "decord", size=None)[0].image
        assert np.abs(image.astype(int) - shown).mean() < 4


def test_pixels_that_are_not_square_are_made_so(name, media, tmp_path):
    path = media.video(tmp_path / "wide.mp4", [quadrants()] * 3, pixel_aspect=Fraction(2))
    with open_video(path, size=None, reader=name) as video:
        assert (video.info.height, video.info.width) == (64, 192)
        assert next(iter(video.frames())).image.shape == (64, 192, 3)
    padded = all_frames(path, name, size=96, fit="pad")[0].image
    assert not padded[:31].any()
    assert padded[34:62, 2:94].any(axis=2).mean() > 0.7


def test_the_three_fits_differ_as_they_should(name, media, tmp_path):
    path = media.video(tmp_path / "clip.mp4", [np.full((64, 128, 3), 200, np.uint8)] * 3)
    crop, pad, stretch = (
        all_frames(path, name, size=32, fit=fit)[0].image for fit in ("crop", "pad", "stretch")
    )
    assert crop.min() > 190
    assert stretch.min() > 190
    assert pad[:8].max() == 0
    assert pad[9:23].min() > 190


def test_masks_beside_a_video_go_through_the_same_fit(name, media, tmp_path):
    images = list(media.square(30))
    path = media.video(tmp_path / "scene.mp4", images)
    masks = np.stack([(image[..., 0] > 200).astype(np.uint8) * 3 for image in images])
    gap = np.arange(30) % 10 == 0
    pts_ns = np.round(np.arange(30) * 1e9 / 25).astype(np.int64) + 5000
    media.masks(path, masks, pts_ns, gap)
    with open_video(path, size=24, reader=name) as video:
        assert video.info.has_masks
        frames = list(video.frames())
        assert video.counters.gaps == 3
    assert [frame.gap for frame in frames] == gap.tolist()
    for frame in frames:
        assert frame.masks is not None
        assert set(np.unique(frame.masks)) <= {0, 3}
        square = frame.image[frame.masks == 3]
        assert not len(square) or np.median(square[:, 0]) > 180


def test_masks_that_do_not_fit_their_video_are_an_error(name, media, tmp_path):
    path = media.video(tmp_path / "scene.mp4", 10)
    masks = np.zeros((5, 48, 64), np.uint8)
    media.masks(path, masks, np.arange(5) * 40_000_000, np.zeros(5, bool))
    with pytest.raises(VideoError, match=r"no masks for the frame at 0.2"):
        all_frames(path, name)


def bad_sources(folder: Path, media) -> dict[str, Path]:
    paths = {kind: folder / f"{kind}.mp4" for kind in ("text", "empty", "cut", "audio", "missing")}
    paths["text"].write_text("dear diary\n" * 500)
    paths["empty"].touch()
    whole = media.video(folder / "whole.mp4", 30).read_bytes()
    paths["cut"].write_bytes(whole[: whole.index(b"moov") - 10])
    media.audio(paths["audio"])
    return paths


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file.*check the path"),
        ("text", "not a video that FFmpeg can read.*name a video file"),
        ("empty", "the file is empty; copy it again"),
        ("cut", "cut before its index.*copy it again"),
        ("audio", "no video stream, only audio; name a file with moving pictures"),
    ],
)
def test_what_is_no_video_is_told_in_one_line(name, kind, message, media, tmp_path):
    path = bad_sources(tmp_path, media)[kind]
    with pytest.raises(VideoError, match=message) as caught:
        open_video(path, reader=name)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_reader_is_refused(clip):
    with pytest.raises(VideoError, match="no reader 'opencv'; choose one of auto, pyav, decord"):
        open_video(clip, reader="opencv")


@pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel")
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_both_readers_give_the_same_frames(fit, clip):
    pyav, decord = (all_frames(clip, name, size=40, fit=fit) for name in ("pyav", "decord"))
    assert [f.pts_ns for f in pyav] == [f.pts_ns for f in decord]
    difference = np.abs(
        np.stack([f.image for f in pyav]).astype(int) - np.stack([f.image for f in decord])
    )
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) <= 16


@pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel")
@pytest.mark.parametrize(
    ("container", "codec", "fps", "options"),
    [
        ("mp4", "libx264", 30, {"bf": "3", "refs": "4"}),
        ("mkv", "libx264", Fraction(24000, 1001), {}),
        ("mp4", "libx264", 30, {"x264-params": "open-gop=1:keyint=10:bframes=2"}),
        ("mp4", "libx265", 50, {"x265-params": "log-level=none"}),
        ("mkv", "libvpx-vp9", 25, {"deadline": "realtime", "cpu-used": "8"}),
        ("avi", "mpeg4", 15, {}),
        ("mov", "mjpeg", 30, {}),
    ],
)
def test_both_readers_give_the_same_frames_of_other_files(
    container, codec, fps, options, media, tmp_path
):
    path = media.video(
        tmp_path / f"video.{container}", 40, codec=codec, fps=fps, gop=10, options=options
    )
    pyav, decord = (all_frames(path, name, size=None) for name in ("pyav", "decord"))
    assert [f.pts_ns for f in pyav] == [f.pts_ns for f in decord]
    assert [f.gap for f in pyav] == [f.gap for f in decord]
    assert len(pyav) == 40
    for ours, theirs in zip(pyav, decord, strict=True):  # chroma is enlarged by other filters
        assert np.abs(ours.image.astype(int) - theirs.image).mean() < 1.5


def test_auto_is_pyav(clip):
    with open_video(clip, reader="auto") as video:
        assert video.info.reader == "pyav"
