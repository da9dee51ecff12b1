"""The picture of the newest frame on disk."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import glimpse

from online.runs.glimpse import MOST_CELLS, MOST_PIXELS, load_glimpse, save_glimpse


@pytest.mark.parametrize("has_segments", [True, False])
def test_a_glimpse_is_read_back_as_it_was_written(has_segments: bool, tmp_path: Path) -> None:
    path = tmp_path / "newest.npz"
    written = glimpse(step=7, has_segments=has_segments)
    save_glimpse(path, written)
    found = load_glimpse(path)
    assert found is not None
    assert (found.step, found.recording, found.frame_seconds) == (7, "balls é", 1.5)
    np.testing.assert_array_equal(found.frame, written.frame)
    np.testing.assert_array_equal(found.attention, written.attention)
    assert (found.segments is not None) == has_segments
    assert [file.name for file in tmp_path.iterdir()] == ["newest.npz"]


def test_its_size_on_disk_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "newest.npz"
    save_glimpse(path, glimpse(step=1, side=1080))
    found = load_glimpse(path)
    assert found is not None
    assert max(found.frame.shape[:2]) <= MOST_PIXELS
    assert max(found.attention.shape[1:]) <= MOST_CELLS
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("keep", [0, 1, 100, -200, -1])
def test_a_damaged_file_is_none_at_all(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "newest.npz"
    save_glimpse(path, glimpse(step=1))
    path.write_bytes(path.read_bytes()[:keep])
    assert load_glimpse(path) is None


def test_arrays_that_do_not_belong_together_are_none_at_all(tmp_path: Path) -> None:
    path = tmp_path / "newest.npz"
    frame, attention = np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4), np.uint8)
    at, name = np.array([1.0, 2.0]), np.array(b"a")
    np.savez(path, frame=frame, attention=attention, at=at, name=name)
    assert load_glimpse(path) is None
    assert load_glimpse(tmp_path / "other.npz") is None
