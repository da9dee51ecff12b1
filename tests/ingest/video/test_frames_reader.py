import h5py
import numpy as np
import pytest
from PIL import Image

from ingest.errors import VideoError
from ingest.video.frames_reader import FrameArchive, PictureReader
from ingest.video.image_folder import ImageFolder
from ingest.video.open import open_video


@pytest.fixture
def folder(media, tmp_path):
    for index, image in enumerate(media.square(12)):
        Image.fromarray(image).save(tmp_path / f"frame{index}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


@pytest.fixture
def archive(media, tmp_path):
    path = tmp_path / "frames.h5"
    images = list(media.square(12))
    with h5py.File(path, "w") as file:
        for part, of in (("train", images[:9]), ("test", images[9:])):
            group = file.create_group(part)
            for index, image in enumerate(of):
                group.create_dataset(str(index), data=image, compression="gzip")
    return path


def test_images_come_in_natural_order_and_unchanged(folder, media):
    with open_video(folder, size=None) as reader:
        frames = list(reader.frames())
        assert reader.info.expected_frames == len(frames) == 12
        assert reader.info.reader == "images"
    np.testing.assert_array_equal(
        np.stack([frame.image for frame in frames]), np.stack(list(media.square(12)))
    )
    assert [frame.gap for frame in frames] == [True] + [False] * 11


def test_pictures_come_at_the_rate_asked_for(folder):
    with open_video(folder, size=16, fps=10.0) as reader:
        frames = list(reader.frames())
        assert reader.info.fps == 10.0
    assert [frame.pts_ns for frame in frames] == [100_000_000 * index for index in range(12)]
    assert frames[0].image.shape == (16, 16, 3)


def test_a_picture_that_does_not_decode_is_counted_and_leaves_a_gap(folder):
    (folder / "frame4.png").write_bytes(b"\x89PNG but no more")
    with open_video(folder, size=None) as reader:
        frames = list(reader.frames())
        assert reader.counters.corrupt_packets == 1
    assert len(frames) == 11
    assert [index for index, frame in enumerate(frames) if frame.gap] == [0, 4]


def test_a_pass_from_the_middle_knows_whether_its_first_frame_follows(folder):
    with open_video(folder, size=16) as reader:
        whole = list(reader.frames())
        part = list(reader.frames(from_pts_ns=whole[7].pts_ns))
        assert reader.counters.decoded == 5
    assert [frame.pts_ns for frame in part] == [frame.pts_ns for frame in whole[7:]]


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(np.zeros((20, 40, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    with open_video(tmp_path, size=None) as reader:
        assert (reader.info.height, reader.info.width) == (40, 20)


def test_images_of_two_sizes_need_a_size(folder):
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(folder / "frame99.png")
    with (
        open_video(folder, size=None) as reader,
        pytest.raises(VideoError, match="picture 99 would be 30x30, the first 64x48"),
    ):
        list(reader.frames())
    with open_video(folder, size=16) as reader:
        assert len(list(reader.frames())) == 13


@pytest.mark.parametrize(("part", "first", "count"), [("train", 0, 9), ("test", 9, 3)])
def test_each_part_of_an_archive_is_a_recording(archive, media, part, first, count):
    with PictureReader(FrameArchive(archive, part), size=None) as reader:
        frames = list(reader.frames())
    expected = list(media.square(12))[first : first + count]
    np.testing.assert_array_equal(np.stack([f.image for f in frames]), np.stack(expected))


def test_a_missing_frame_of_an_archive_is_a_gap(archive):
    with h5py.File(archive, "a") as file:
        del file["train/3"]
    with PictureReader(FrameArchive(archive, "train"), size=None) as reader:
        frames = list(reader.frames())
    assert [index for index, frame in enumerate(frames) if frame.gap] == [0, 3]
    assert frames[3].pts_ns == round(4e9 / 30)


def test_an_archive_of_something_else_is_refused(archive):
    with h5py.File(archive, "a") as file:
        del file["test/0"]
        file["test/0"] = np.zeros((4, 4), np.float32)
    with pytest.raises(VideoError, match=r"frame 0 is float32 of shape \(4, 4\)"):
        PictureReader(FrameArchive(archive, "test"))
    with pytest.raises(VideoError, match="not a frame archive"):
        FrameArchive(archive, "validation")


def test_a_whole_archive_is_not_one_video(archive):
    with pytest.raises(VideoError, match=r"several recordings .*\(train\).*\(test\)"):
        open_video(archive)


def test_an_empty_folder_has_no_pictures(tmp_path):
    with pytest.raises(VideoError, match="no pictures"):
        PictureReader(ImageFolder(tmp_path))
