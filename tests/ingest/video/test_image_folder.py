"""Pictures of any depth, with pages, and with holes in their numbers."""

import numpy as np
import pytest
from PIL import Image

from ingest.errors import VideoError
from ingest.video.image_folder import ImageFolder
from ingest.video.open import open_video


def pages(count: int) -> list[Image.Image]:
    """Pictures that differ in their brightness alone."""
    return [Image.new("RGB", (16, 12), (20 * index + 30,) * 3) for index in range(count)]


def shown(path) -> list[int]:
    """The brightness of every frame, in steps of `pages`."""
    with open_video(path, size=None) as video:
        return [round((int(frame.image.mean()) - 30) / 20) for frame in video.frames()]


def numbers(tmp_path, *names: str) -> list[int]:
    for name in names:
        pages(1)[0].save(tmp_path / f"{name}.png")
    return ImageFolder(tmp_path).numbers


@pytest.mark.parametrize("suffix", ["tif", "webp", "png", "avif", "gif"])
def test_every_page_is_a_frame(suffix, tmp_path):
    first, *others = pages(10)
    path = tmp_path / "clip" / f"a.{suffix}"
    path.parent.mkdir()
    first.save(path, save_all=True, append_images=others)
    assert shown(path) == list(range(10))
    assert shown(path.parent) == list(range(10))
    with open_video(path, size=None) as video:
        assert [frame.gap for frame in video.frames()] == [True] + [False] * 9
        from_middle = video.frames(from_pts_ns=200_000_000)
        assert round((int(next(iter(from_middle)).image.mean()) - 30) / 20) in (2, 5, 6)


def test_pages_of_one_file_do_not_continue_those_of_another(tmp_path):
    first, *others = pages(3)
    for name in ("a", "b"):
        first.save(tmp_path / f"{name}.tif", save_all=True, append_images=others)
    first.save(tmp_path / "c.png")
    with open_video(tmp_path, size=None) as video:
        gaps = [frame.gap for frame in video.frames()]
    assert [index for index, gap in enumerate(gaps) if gap] == [0, 3, 6]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_of_grey_are_scaled_to_eight(name, tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (4, 1))).save(tmp_path / name)
    with open_video(tmp_path, size=None) as video:
        (frame,) = video.frames()
    assert frame.image[0, :, 0].tolist() == list(range(256))
    assert (frame.image == frame.image[..., :1]).all()


@pytest.mark.parametrize(
    ("kind", "message"), [(np.float32, "floats"), (np.int32, "integers of 32 bits")]
)
def test_pixels_without_a_white_of_their_own_are_refused(kind, message, tmp_path):
    Image.fromarray(np.zeros((4, 4), kind)).save(tmp_path / "a.tif")
    with pytest.raises(VideoError, match=rf"a\.tif: pixels are {message}.* convert the pictures"):
        open_video(tmp_path)


@pytest.mark.parametrize("suffix", ["jp2", "ppm", "jfif", "avif", "bmp", "pgm", "webp"])
def test_pictures_of_many_kinds_are_found(suffix, tmp_path):
    for index, page in enumerate(pages(2)):
        mode = "L" if suffix == "pgm" else "RGB"
        page.convert(mode).save(tmp_path / f"{index}.{suffix}")
    assert shown(tmp_path) == [0, 1]


def test_a_hole_in_the_numbers_is_a_gap_and_takes_its_time(tmp_path):
    for index, name in enumerate(["00001", "00002", "00003", "00007", "00008", "00009"]):
        pages(6)[index].save(tmp_path / f"{name}.png")
    with open_video(tmp_path, size=None, fps=10.0) as video:
        frames = list(video.frames())
        assert video.counters.gaps == 2
    assert [frame.pts_ns // 100_000_000 for frame in frames] == [0, 1, 2, 6, 7, 8]
    assert [frame.gap for frame in frames] == [True, False, False, True, False, False]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["0", "5", "10", "15"], [0, 1, 2, 3]),  # every fifth frame
        (["f0", "f5", "f10", "f25", "f30"], [0, 1, 2, 5, 6]),
        (["1000", "1033", "1066", "1101", "1199", "1233"], [0, 1, 2, 3, 6, 7]),  # milliseconds
        (["1", "20", "22", "900", "1000"], [0, 1, 2, 3, 4]),  # steady in no way
        (["a1", "b2", "c9"], [0, 1, 2]),  # names that differ otherwise
        (["a", "b", "c"], [0, 1, 2]),
        (["1", "01", "2"], [0, 1, 2]),
        (["7", "9"], [0, 1]),
    ],
)
def test_numbers_are_believed_where_they_are_steady(names, expected, tmp_path):
    assert numbers(tmp_path, *names) == expected


def test_a_number_that_has_no_time_is_refused(tmp_path):
    for index, name in enumerate(["1", "2", "3", "4", "1" + 17 * "0"]):
        pages(5)[index].save(tmp_path / f"{name}.png")
    with pytest.raises(VideoError, match="the last picture comes over a century after the first"):
        open_video(tmp_path)
