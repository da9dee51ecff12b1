"""From real sources into a real store: a drawn picture, and MPEG-TS over loopback."""

import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ingest.decoding.scaling import Scaler
from ingest.errors import NotAStoreError, RecordingExistsError, StorageFullError
from ingest.frame import Frames
from ingest.live.backlog import Backlog
from ingest.live.camera import Camera
from ingest.live.capture import Captured, capture, open_live_store
from ingest.live.devices import parse_device
from ingest.open import open_store
from ingest.store.blobs import LocalBlobs
from ingest.store.directory import DirectoryStore
from ingest.store.formats.zarr_files import ZarrFiles
from ingest.store.layout import StoreLayout
from ingest.store.protocols import Store
from ingest.store.records import RecordSettings

BOUND = 30.0
SETTINGS = RecordSettings(size=32, reader="camera")
PICTURE = "lavfi:testsrc2=size=64x48:rate={rate},realtime"
SENDER = """
    import sys, time, av, numpy as np
    with av.open(f"tcp://127.0.0.1:{sys.argv[1]}?listen=1", "w", format="mpegts") as out:
        stream = out.add_stream("mpeg2video", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 10
        begun = time.monotonic()
        for index in range(100_000):
            image = np.full((48, 64, 3), index % 256, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            time.sleep(max(0, begun + index / 25 - time.monotonic()))
"""


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(tmp_path / "store", create_format="zarr")


@contextmanager
def sender(port: int) -> Iterator[None]:
    """A camera on the network, in a process that is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SENDER), str(port)], stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(BOUND)


def listening(port: int) -> bool:
    """Whether a sender waits for its one viewer; asked without taking that place."""
    needle = f":{port:04X} 00000000:0000 0A"
    return needle in Path("/proc/net/tcp").read_text()


def wait_until(holds) -> None:
    deadline = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_capture_keeps_the_last_that_it_is_told_to_keep(store, monkeypatch):
    monkeypatch.setattr("ingest.live.capture.LEAST_KEPT_SECONDS", 1.0)
    monkeypatch.setattr("ingest.live.capture.RELEASE_SECONDS", 0.5)
    device = parse_device(PICTURE.format(rate=30), ())
    with Camera(device, SETTINGS) as camera:
        captured = capture(camera, store, name="a", seconds=4.0, keep_seconds=1.0)
    commit = captured.commit
    assert commit.complete
    with store.reader("a") as reader:
        kept = reader.read(commit.released, commit.length)
        assert len(reader.pts_ns()) == commit.length
    seconds = (kept.pts_ns[-1] - kept.pts_ns[0]) / 1e9
    assert 1.0 <= seconds <= 1.0 + 0.5 + 2 * 0.5 + 0.1  # a step, and two chunks of half a second
    chunks = list((Path(store.location) / "recordings/a/frames").glob("c.*"))
    assert len(chunks) == -(-len(kept) // commit.chunk_length)
    refused = pytest.raises(ValueError, match=r"keep_seconds must be at least 1\.0, got 0\.5")
    with refused, Camera(device, SETTINGS) as camera:
        capture(camera, store, name="b", seconds=1.0, keep_seconds=0.5)
    assert store.recordings() == ["a"]


def cut_off_at(length: int):
    def progress(captured: Captured) -> None:
        if captured.commit.length >= length:
            raise KeyboardInterrupt

    return progress


def test_a_capture_that_goes_on_releases_what_was_there_before(store, monkeypatch):
    monkeypatch.setattr("ingest.live.capture.LEAST_KEPT_SECONDS", 0.5)
    monkeypatch.setattr("ingest.live.capture.RELEASE_SECONDS", 0.1)
    device = parse_device(PICTURE.format(rate=50))
    released = []
    for length in (50, 75):
        with Camera(device, SETTINGS) as camera, pytest.raises(KeyboardInterrupt):
            capture(camera, store, name="a", keep_seconds=0.5, progress=cut_off_at(length))
        released.append(store.commit("a").released)
    assert released == [0, 25]


def test_captures_go_on_together_while_another_program_trims_one_of_them(store):
    device = parse_device(PICTURE.format(rate=50))
    for name in "ab":
        with Camera(device, SETTINGS) as camera, pytest.raises(KeyboardInterrupt):
            capture(camera, store, name=name, progress=cut_off_at(25))
    trims, goes_on = threading.Event(), threading.Event()

    class Trimming(ZarrFiles):
        def settle(self, commit):
            trims.set()
            assert goes_on.wait(BOUND)
            super().settle(commit)

    layout = StoreLayout.open(LocalBlobs(Path(store.location)))
    trimmer = threading.Thread(target=DirectoryStore(layout, Trimming).settle, args=("a",))
    trimmer.start()
    assert trims.wait(BOUND)
    threading.Timer(0.3, goes_on.set).start()
    with Camera(device, SETTINGS) as camera, Camera(device, SETTINGS) as other:
        second = threading.Thread(target=lambda: capture(other, store, name="b", seconds=0.2))
        second.start()
        capture(camera, store, name="a", seconds=0.2)
        second.join(BOUND)
    trimmer.join(BOUND)
    assert store.commit("a").complete
    assert store.commit("b").complete


def read_all(store: Store, name: str) -> Frames:
    with store.reader(name) as reader:
        return reader.read(0, reader.commit.length)


def check(captured: Captured, frames: Frames) -> None:
    """What holds for every capture."""
    counters = captured.commit.counters
    assert counters.decoded == (
        counters.stored + counters.dropped + counters.duplicate + counters.resampled
    )
    assert counters.stored == captured.commit.length == len(frames)
    assert counters.gaps == frames.gap.sum()
    assert frames.gap[0]
    assert (np.diff(frames.pts_ns) > 0).all()
    assert frames.captured_ns is not None
    assert (np.diff(frames.captured_ns) >= 0).all()


def test_a_capture_ends_in_time_and_is_complete(store):
    seen = []
    before_ns = time.time_ns()
    with Camera(parse_device(PICTURE.format(rate=25)), SETTINGS) as camera:
        captured = capture(camera, store, name="a", seconds=1.7, progress=seen.append)
    commit, frames = store.commit("a"), read_all(store, "a")
    check(captured, frames)
    assert commit == captured.commit
    assert (commit.complete, commit.live, commit.chunk_length) == (True, True, 12)
    assert commit.length > 12
    assert {progress.commit.length % 12 for progress in seen[:-1]} == {0}
    assert seen[-1] == captured
    assert (np.diff(frames.pts_ns) == 40_000_000).all()
    assert frames.gap.sum() == 1
    assert frames.captured_ns is not None
    assert before_ns < frames.captured_ns[0] <= frames.captured_ns[-1] < time.time_ns()
    with av.open("testsrc2=size=64x48:rate=25", format="lavfi") as container:
        drawn, scaler = islice(container.decode(video=0), len(frames)), Scaler(size=32, fit="crop")
        for image, decoded in zip(frames.images, drawn, strict=True):
            np.testing.assert_array_equal(image, scaler.image(decoded, scaler.plan(decoded)))


def test_a_killed_sender_that_comes_back_leaves_a_gap_and_loses_no_count(store):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen: list[Captured] = []
    stop = threading.Event()
    ended: list[Captured] = []

    def record() -> None:
        with Camera(parse_device(f"tcp://127.0.0.1:{port}"), SETTINGS) as camera:
            ended.append(
                capture(camera, store, name="a", progress=seen.append, should_stop=stop.is_set)
            )

    recorder = threading.Thread(target=record)
    try:
        with sender(port):
            wait_until(lambda: listening(port))
            recorder.start()
            wait_until(lambda: seen and seen[-1].commit.length >= 24)
        with sender(port):
            wait_until(lambda: seen[-1].reconnects == 1)
            back_at = seen[-1].commit.length
            wait_until(lambda: seen[-1].commit.length >= back_at + 24)
            stop.set()
            recorder.join(BOUND)
    finally:
        stop.set()
    (captured,) = ended
    frames = read_all(store, "a")
    check(captured, frames)
    assert captured.reconnects == 1
    assert captured.commit.complete
    assert captured.commit.counters.gaps >= 2
    silence = np.argmax(np.diff(frames.pts_ns)) + 1
    assert frames.gap[silence]
    assert frames.captured_ns is not None
    outage_ns = frames.captured_ns[silence] - frames.captured_ns[silence - 1]
    assert outage_ns > 40_000_000


class SlowFiles(ZarrFiles):
    """A disk that takes longer to write a chunk than its frames take to come."""

    def write(self, frames, start, commit):
        time.sleep(1.2)
        super().write(frames, start, commit)


def test_a_slow_disk_costs_the_oldest_frames_and_the_camera_never_waits(store):
    store = DirectoryStore(StoreLayout.open(LocalBlobs(Path(store.location))), SlowFiles)
    device = parse_device(PICTURE.format(rate=50))
    with Camera(device, SETTINGS, backlog=Backlog(max_frames=25)) as camera:
        captured = capture(camera, store, name="a", seconds=3.0)
    frames, counters = read_all(store, "a"), captured.commit.counters
    check(captured, frames)
    assert captured.commit.complete
    assert counters.dropped > 0
    shown = frames.pts_ns // 20_000_000  # which picture each frame is
    assert shown[-1] == counters.decoded - 1, "the newest is never dropped"
    missing = [after - before - 1 for before, after in pairwise(shown.tolist())]
    assert sum(missing) == counters.dropped - shown[0]
    assert [bool(gap) for gap in frames.gap[1:]] == [count > 0 for count in missing]


def test_a_full_disk_keeps_what_was_committed(store):
    class FullFiles(ZarrFiles):
        def write(self, frames, start, commit):
            if start:
                raise StorageFullError("the disk is exhausted")
            super().write(frames, start, commit)

    store = DirectoryStore(StoreLayout.open(LocalBlobs(Path(store.location))), FullFiles)
    device = parse_device(PICTURE.format(rate=50))
    with Camera(device, SETTINGS) as camera, pytest.raises(StorageFullError):
        capture(camera, store, name="a")
    assert len(read_all(store, "a")) == store.commit("a").length == 25
    assert not store.commit("a").complete


def test_a_capture_that_was_cut_off_goes_on_after_a_gap(store):
    device = parse_device(PICTURE.format(rate=50))
    seen: list[dict[str, Any]] = []

    def cut_off(captured: Captured) -> None:
        seen.append(frames_metadata(store, "a"))
        if captured.commit.length >= 50:
            raise KeyboardInterrupt

    with Camera(device, SETTINGS) as camera, pytest.raises(KeyboardInterrupt):
        capture(camera, store, name="a", progress=cut_off)
    before = read_all(store, "a")
    assert [said["attributes"]["committed_length"] for said in seen] == [25, 50]
    assert seen[-1]["shape"][0] > 50
    with Camera(device, RecordSettings(size=16, reader="camera")) as camera:
        refused = pytest.raises(
            RecordingExistsError, match=r"unfinished .*, size 32, codec zstd; give another"
        )
        with refused:
            capture(camera, store, name="a", seconds=0.2)
        capture(camera, store, name="b", seconds=0.2)
    store.settle("a")  # as `info` does
    said = frames_metadata(store, "a")
    assert (said["shape"][0], "committed_length" in said["attributes"]) == (50, False)
    with Camera(device, SETTINGS) as camera:
        captured = capture(camera, store, name="a", seconds=0.7)
    frames = read_all(store, "a")
    check(captured, frames)
    assert captured.commit.complete
    assert (frames.images[:50] == before.images).all()
    assert frames.gap.nonzero()[0].tolist() == [0, 50]
    assert frames.captured_ns is not None
    outage_ns = np.diff(frames.captured_ns)[49]
    assert np.diff(frames.pts_ns)[49] == pytest.approx(outage_ns, abs=1)
    assert frames_metadata(store, "a")["shape"][0] == len(frames)


def frames_metadata(store: Store, name: str) -> dict[str, Any]:
    """What a program that reads zarr alone finds."""
    return json.loads((Path(store.location) / f"recordings/{name}/frames/zarr.json").read_text())


def test_a_recording_is_never_added_to(store):
    device = parse_device(PICTURE.format(rate=50))
    with Camera(device, SETTINGS) as camera:
        first = capture(camera, store, seconds=0.2)
    assert first.name.startswith("lavfi-2")
    refused = pytest.raises(RecordingExistsError, match="already; give another name")
    with Camera(device, SETTINGS) as camera, refused:
        capture(camera, store, name=first.name, seconds=0.2)
    assert store.commit(first.name) == first.commit


def test_a_store_for_captures_is_made_of_zarr_and_any_other_is_refused(tmp_path):
    assert open_live_store(tmp_path / "new").format == "zarr"
    assert open_live_store(tmp_path / "new").recordings() == []
    open_store(tmp_path / "h5", create_format="h5")
    with pytest.raises(NotAStoreError, match=r"format h5.* name another path"):
        open_live_store(tmp_path / "h5")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NotAStoreError, match="not a store"):
        open_live_store(tmp_path / "notes.txt")
