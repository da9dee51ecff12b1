"""Frames that a program pushes, into a real store."""

import itertools
import time

import numpy as np
import pytest

import ingest
from ingest.errors import RecordingExistsError, StoreError, VideoError
from ingest.live.backlog import Backlog
from ingest.live.pushed import open_capture

BOUND = 20.0
BEGAN_NS = 1_800_000_000_000_000_000
STEP_NS = 33_000_000


def image(number: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*shape, 3), number % 256, np.uint8)


def test_what_is_pushed_is_stored_with_its_times(tmp_path):
    with open_capture(tmp_path / "store", "robot", size=16) as camera:
        for number in range(40):
            camera.push(image(number), BEGAN_NS + number * STEP_NS)
    assert camera.captured is not None
    assert camera.captured.commit.complete
    assert camera.captured.commit.counters == ingest.Counters(decoded=40, stored=40, gaps=1)
    store = ingest.open_store(tmp_path / "store")
    with store.reader("robot") as reader:
        frames = reader.read(0, 40)
    assert frames.images.shape == (40, 16, 16, 3)
    assert np.array_equal(frames.images[:, 8, 8, 0], np.arange(40))
    assert np.array_equal(np.diff(frames.pts_ns), np.full(39, STEP_NS))
    assert frames.captured_ns is not None
    assert np.array_equal(frames.captured_ns, BEGAN_NS + np.arange(40) * STEP_NS)
    assert all(recording.ok for recording in ingest.verify_store(store))


def test_breaks_of_what_is_pushed_are_gaps(tmp_path):
    times = [BEGAN_NS + number * STEP_NS for number in range(60)]
    later = [at + 5_000_000_000 for at in times[30:]]
    with open_capture(tmp_path / "store", "robot", size=16) as camera:
        for number, at in enumerate([*times[:30], *later]):
            camera.push(image(number, (20 + number, 30)), at, gap=number == 10)
    with ingest.open_store(tmp_path / "store").reader("robot") as reader:
        assert np.flatnonzero(reader.gap()).tolist() == [0, 10, 30]


def test_pushing_never_waits_and_what_is_dropped_is_counted(tmp_path, monkeypatch):
    """The store takes nothing until all is pushed."""
    backlog = Backlog(max_frames=8)
    real, pushed = Backlog.take, []

    def take(self, count, timeout_seconds):
        if len(pushed) < 100:
            time.sleep(0.001)
            return None
        return real(self, count, timeout_seconds)

    monkeypatch.setattr(Backlog, "take", take)
    with open_capture(tmp_path / "store", "robot", size=16, backlog=backlog) as camera:
        for number in range(100):
            camera.push(image(number), BEGAN_NS + number * STEP_NS)
            pushed.append(number)
    assert camera.captured is not None
    counters = camera.captured.commit.counters
    assert (counters.decoded, counters.stored, counters.dropped) == (100, 8, 92)
    store = ingest.open_store(tmp_path / "store")
    with store.reader("robot") as reader:
        assert reader.read(0, 8).images[:, 0, 0, 0].tolist() == list(range(92, 100))
    assert all(recording.ok for recording in ingest.verify_store(store))


def test_what_cannot_be_pushed_says_why(tmp_path, unchecked_shapes):
    capture = open_capture(tmp_path / "store", "robot", size=16)
    with pytest.raises(VideoError, match="push:robot: is not open"):
        capture.push(image(0))
    with capture as camera:
        camera.push(image(0))
        for odd in (image(0)[..., :1], image(0).astype(np.float32), image(0)[:0]):
            with pytest.raises(ValueError, match=r"an image must be uint8 \(h, w, 3\)"):
                camera.push(odd)
    with pytest.raises(VideoError, match="is not open"):
        camera.push(image(0))
    with pytest.raises(RecordingExistsError, match="there is a recording 'robot' already"):
        open_capture(tmp_path / "store", "robot")


def test_a_store_that_cannot_be_written_is_an_error_where_frames_are_pushed(tmp_path):
    def push_until_it_fails() -> None:
        with open_capture(tmp_path / "store", "robot", size=16) as camera:
            deadline = time.monotonic() + BOUND
            for number in itertools.count():
                assert time.monotonic() < deadline
                camera.push(image(number), BEGAN_NS + number * STEP_NS)
                time.sleep(0.001)
                if number == 50:
                    frames = tmp_path / "store" / "recordings" / "robot" / "frames"
                    frames.rename(tmp_path / "gone")  # at once, while files come and go in it

    with pytest.raises(StoreError, match="cannot write"):
        push_until_it_fails()
