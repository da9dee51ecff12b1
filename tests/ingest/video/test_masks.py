import h5py
import numpy as np
import pytest

from ingest.errors import VideoError
from ingest.video.masks import MaskSidecar, find_sidecar

STEP = 40_000_000


@pytest.fixture
def sidecar(media, tmp_path):
    masks = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 6), np.uint8)
    path = media.masks(tmp_path / "x.mp4", masks, np.arange(10) * STEP, np.arange(10) == 5)
    opened = MaskSidecar(path)
    yield opened
    opened.close()


def test_a_sidecar_is_found_by_the_name_of_its_video(sidecar, tmp_path):
    assert find_sidecar(tmp_path / "x.mp4") == tmp_path / "x.masks.h5"
    assert find_sidecar(tmp_path / "y.mp4") is None


def test_rows_are_found_by_time_with_the_rounding_of_a_container(sidecar):
    assert [sidecar.row(pts_ns=index * STEP + 39_000, index=0) for index in range(10)] == list(
        range(10)
    )
    assert [sidecar.row(pts_ns=index * STEP - 39_000, index=0) for index in range(10)] == list(
        range(10)
    )
    assert sidecar.labels(3).max() == sidecar.labels(3).min() == 3
    assert [sidecar.gap(row) for row in range(10)] == [row == 5 for row in range(10)]


@pytest.mark.parametrize("pts_ns", [-STEP, STEP // 2, 10 * STEP, None])
def test_a_time_without_a_row_is_an_error(sidecar, pts_ns):
    with pytest.raises(VideoError, match=r"no masks for the frame at|without a time"):
        sidecar.row(pts_ns=pts_ns, index=0)


@pytest.mark.parametrize(
    ("masks", "pts_ns", "message"),
    [
        (np.zeros((3, 4, 4), np.uint8), np.arange(2), "of shapes"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.arange(2), "of shapes"),
        (np.zeros((2, 4, 4), np.uint8), np.array([5, 5]), "does not grow"),
    ],
)
def test_a_sidecar_that_makes_no_sense_is_refused(media, tmp_path, masks, pts_ns, message):
    path = media.masks(tmp_path / "x.mp4", masks, pts_ns, np.zeros(len(pts_ns), bool))
    with pytest.raises(VideoError, match=message):
        MaskSidecar(path)


def test_a_file_that_is_no_sidecar_is_refused(tmp_path):
    path = tmp_path / "x.masks.h5"
    path.write_text("nothing of the kind")
    with pytest.raises(VideoError, match="unreadable"):
        MaskSidecar(path)


@pytest.mark.parametrize("field", ["masks", "pts_ns", "gap"])
def test_a_sidecar_of_links_is_refused(media, tmp_path, field):
    path = media.masks(
        tmp_path / "x.mp4", np.zeros((3, 4, 4), np.uint8), np.arange(3), np.zeros(3, bool)
    )
    with h5py.File(path, "a") as file:
        del file[field]
        file[field] = h5py.SoftLink("/pts_ns")
    with pytest.raises(VideoError, match=r"unreadable .*link to another place"):
        MaskSidecar(path)


def test_a_video_whose_name_leaves_no_room_for_a_sidecar_has_none(tmp_path):
    assert find_sidecar(tmp_path / ("x" * 250 + ".mp4")) is None
