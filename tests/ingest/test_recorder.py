"""One source into one recording: whole, cut off, continued, refused."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from shape_checks import without_shape_checks

from ingest.decoding.decoder import MAX_BAD_PACKETS
from ingest.errors import RecordingExistsError, SourceStopped, StorageFullError, VideoError
from ingest.frame import Frames
from ingest.open import open_store
from ingest.recorder import Recorded, record
from ingest.store.protocols import Store
from ingest.store.records import RecordSettings
from ingest.video.identity import fingerprint
from ingest.video.open import open_source
from ingest.video.sources import expand

# thousands of frames for each test; those of readers and stores check the shapes of some
pytestmark = pytest.mark.usefixtures("unchecked_shapes")

FORMATS = ["zarr", "h5"]
ROOT = Path(__file__).parents[2]
SETTINGS = RecordSettings(size=64)  # a block is 512 frames in zarr, a part 1024 in h5

CHILD = """
import os, resource, signal, sys, threading
from dataclasses import replace
from ingest.store import layout
from ingest import recorder
from ingest.errors import IngestError
from ingest.open import open_store
from ingest.video.open import open_source
from ingest.video.identity import fingerprint
from ingest.video.sources import expand
from ingest.store.records import RecordSettings

video, store, store_format, fate, count = sys.argv[1:]
write_commit, commits = layout.StoreLayout.write_commit, 0

def count_commits(self, *given):
    global commits
    commits += 1
    if fate == "killed before commit" and commits == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    write_commit(self, *given)
    if fate == "killed after commit" and commits == int(count):
        os.kill(os.getpid(), signal.SIGKILL)

layout.StoreLayout.write_commit = count_commits
if fate == "file size limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(count), int(count)))
(spec,) = expand(video)
settings = RecordSettings(size=64)
try:
    with open_source(spec, settings) as reader:
        recorder.record(reader, open_store(store, create_format=store_format), name="a",
                        source=fingerprint(spec), settings=replace(settings, reader="pyav"))
except IngestError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def run_child(video: Path, store: Path, store_format: str, fate: str, count: int):
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(video), str(store), store_format, fate, str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def record_file(store: Store, video: Path, settings: RecordSettings = SETTINGS, **kw) -> Recorded:
    (spec,) = expand(str(video))
    with open_source(spec, settings) as reader:
        settings = RecordSettings(
            size=settings.size, fit=settings.fit, fps=settings.fps, reader=reader.info.reader
        )
        return record(reader, store, name="a", source=fingerprint(spec), settings=settings, **kw)


def whole(store: Store) -> Frames:
    with store.reader("a") as reader:
        return reader.read(0, reader.commit.length, masks=True)


@pytest.fixture(scope="module")
def long_video(media, tmp_path_factory) -> Path:
    """2500 small frames: several blocks in either format, and a tail."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    images = media.square(2500, height=64, width=64)
    return media.video(path, images, options={"preset": "ultrafast"}, gop=100)


@pytest.fixture(scope="module", params=FORMATS)
def uninterrupted(request, long_video, tmp_path_factory) -> Store:
    path = tmp_path_factory.mktemp("uninterrupted") / "store"
    store = open_store(path, create_format=request.param)
    with without_shape_checks():
        recorded = record_file(store, long_video)
    assert (recorded.status, recorded.commit.length) == ("recorded", 2500)
    return store


def recording_files(store: Store, media) -> dict[str, bytes]:
    return media.files(Path(store.location) / "recordings")


def test_a_recording_is_what_its_reader_gave(uninterrupted, long_video):
    (spec,) = expand(str(long_video))
    with open_source(spec, SETTINGS) as reader:
        expected = Frames.stack(list(reader.frames()))
        counters = reader.counters
    stored = whole(uninterrupted)
    np.testing.assert_array_equal(stored.images, expected.images)
    np.testing.assert_array_equal(stored.pts_ns, expected.pts_ns)
    np.testing.assert_array_equal(stored.gap, expected.gap)
    assert uninterrupted.commit("a").counters == counters


@pytest.mark.parametrize(
    ("fate", "count"),
    [
        ("killed after commit", 1),
        ("killed after commit", 3),
        ("killed before commit", 3),
        ("killed before commit", -1),
    ],
    ids=["at once", "after data and commit", "between data and commit", "before it was complete"],
)
def test_a_killed_ingest_continues_to_the_same_bytes(
    uninterrupted, long_video, media, tmp_path, fate, count
):
    if count == -1:  # the last commit of all: the one that says complete
        count = {"zarr": 6, "h5": 4}[uninterrupted.format]
    child = run_child(long_video, tmp_path / "store", uninterrupted.format, fate, count)
    assert child.returncode == -signal.SIGKILL, child.stderr
    store = open_store(tmp_path / "store")
    before = store.commit("a")
    assert not before.complete
    np.testing.assert_array_equal(whole(store).images, whole(uninterrupted).images[: before.length])
    recorded = record_file(store, long_video)
    assert recorded.status == ("resumed" if before.length else "recorded")
    assert recorded.frames_this_run == 2500 - before.length
    assert not recorded.restarted
    assert recording_files(store, media) == recording_files(uninterrupted, media)


def test_a_full_disk_is_one_clear_error_and_loses_nothing(media, tmp_path):
    random = np.random.default_rng(0)
    images = [np.zeros((64, 64, 3), np.uint8)] * 1100
    images += list(random.integers(0, 256, (200, 64, 64, 3), np.uint8))
    video = media.video(tmp_path / "v.mp4", images, options={"preset": "ultrafast"})
    expected = open_store(tmp_path / "expected", create_format="zarr")
    record_file(expected, video)

    child = run_child(video, tmp_path / "store", "zarr", "file size limit", 100_000)
    assert child.returncode == 1
    assert child.stderr.count("\n") == 1
    assert child.stderr.startswith("StorageFullError: ")
    assert "recording 'a': the file size limit is exhausted" in child.stderr
    store = open_store(tmp_path / "store")
    assert store.commit("a").length == 1024
    assert not whole(store).images.any()

    assert record_file(store, video).status == "resumed"
    assert recording_files(store, media) == recording_files(expected, media)


def test_the_same_command_again_says_that_it_is_complete(uninterrupted, long_video, media):
    before = recording_files(uninterrupted, media)
    recorded = record_file(uninterrupted, long_video)
    assert (recorded.status, recorded.frames_this_run) == ("already complete", 0)
    assert recording_files(uninterrupted, media) == before


def stop_after_first_block(store: Store, video: Path, settings: RecordSettings = SETTINGS):
    stop = threading.Event()
    recorded = record_file(store, video, settings, stop=stop, progress=lambda _: stop.set())
    assert recorded.status == "stopped"
    return recorded


def test_stopping_keeps_what_is_committed(uninterrupted, long_video, media, tmp_path):
    store = open_store(tmp_path / "store", create_format=uninterrupted.format)
    recorded = stop_after_first_block(store, long_video)
    assert 0 < recorded.commit.length < 2500
    assert record_file(store, long_video).status == "resumed"
    assert recording_files(store, media) == recording_files(uninterrupted, media)


@pytest.fixture(scope="module")
def stretch_without_frames(long_video, tmp_path_factory) -> Path:
    """80,000 frames behind a key frame that is damaged: none of them may be stored."""
    path = tmp_path_factory.mktemp("stretch") / "stretch.mkv"
    with av.open(str(long_video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [bytes(packet) for packet in source.demux(video=0) if packet.size][:100]
        for number in range(80_000):
            data = packets[1 + number % 99] if number else bytes(1000)
            packet = av.Packet(data)
            packet.is_keyframe = number == 0
            packet.pts = packet.dts = 40 * number
            packet.time_base, packet.stream = Fraction(1, 1000), stream
            target.mux(packet)
    return path


def files_of(pid: int) -> set[str]:
    """Paths that a process has open."""
    found: set[str] = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # closed meanwhile
            found.add(str(link.readlink()))
    return found


def test_ctrl_c_is_heard_within_a_stretch_without_frames(stretch_without_frames, tmp_path):
    video = stretch_without_frames
    command = [sys.executable, "-m", "setcon", "ingest", str(video), str(tmp_path / "store")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        opened_at = time.monotonic()
        while str(video) not in files_of(process.pid):
            assert time.monotonic() - opened_at < 60
            time.sleep(0.05)
        time.sleep(0.5)  # of about eleven seconds that the stretch takes
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert said.splitlines()[-1].endswith("stopped; run the same command again"), said
    assert time.monotonic() - begun < 5, said


@pytest.mark.parametrize("start", [0, 1])
def test_a_source_is_left_at_the_next_packet(start, long_video, tmp_path):
    store, stop = open_store(tmp_path / "store", create_format="zarr"), threading.Event()
    if start:
        stop_after_first_block(store, long_video)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        if asked > 50:
            stop.set()
        return stop.is_set()

    (spec,) = expand(str(long_video))
    with open_source(spec, SETTINGS, should_stop=should_stop) as reader:
        settings = replace(SETTINGS, reader="pyav")
        recorded = record(
            reader, store, name="a", source=fingerprint(spec), settings=settings, stop=stop
        )
    assert (recorded.status, recorded.frames_this_run) == ("stopped", 0)
    assert asked < 60
    with pytest.raises(SourceStopped, match=r"long.mp4: stopped; run the same command"):
        open_source(spec, SETTINGS, should_stop=lambda: True)


def assert_continues_to_the_same_bytes(video: Path, folder: Path, media) -> Recorded:
    stores = [open_store(folder / name, create_format="zarr") for name in ("one", "two")]
    record_file(stores[0], video)
    stop_after_first_block(stores[1], video)
    recorded = record_file(stores[1], video)
    assert recorded.status == "resumed"
    assert recording_files(stores[1], media) == recording_files(stores[0], media)
    return recorded


def test_a_source_that_cannot_seek_is_read_from_its_start(media, tmp_path, caplog):
    images = media.square(900, height=32, width=32)
    video = media.video(tmp_path / "raw.h264", images, options={"preset": "ultrafast"})
    assert_continues_to_the_same_bytes(video, tmp_path, media)
    assert "cannot seek" in caplog.text


def test_a_source_whose_clock_goes_back_is_decoded_again_from_its_start(media, tmp_path, caplog):
    images = list(media.square(450, height=32, width=32))
    part = media.video(tmp_path / "part.ts", images, options={"preset": "ultrafast"})
    video = tmp_path / "twice.ts"
    video.write_bytes(part.read_bytes() * 2)
    assert assert_continues_to_the_same_bytes(video, tmp_path, media).restarted
    assert "decoding from the start" in caplog.text


def test_resampled_footage_continues_to_the_same_bytes(long_video, media, tmp_path):
    settings = RecordSettings(size=64, fps=12.5)
    stores = [open_store(tmp_path / name, create_format="zarr") for name in ("one", "two")]
    record_file(stores[0], long_video, settings)
    stop_after_first_block(stores[1], long_video, settings)
    assert not record_file(stores[1], long_video, settings).restarted
    assert recording_files(stores[0], media) == recording_files(stores[1], media)
    counters = stores[1].commit("a").counters
    assert counters.decoded == counters.stored + counters.resampled == 2500


def test_frames_that_no_longer_come_out_the_same_are_refused(long_video, tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr")
    stop_after_first_block(store, long_video)
    (spec,) = expand(str(long_video))
    other = RecordSettings(size=64, fit="stretch", fps=5.0)  # stands for a changed decoder
    with (
        open_source(spec, other) as reader,
        pytest.raises(RecordingExistsError, match="no longer decodes to the 512 frames"),
    ):
        record(
            reader,
            store,
            name="a",
            source=fingerprint(spec),
            settings=store.commit("a").settings,
        )
    assert store.commit("a").length == 512


def test_masks_and_episodes_are_recorded_and_continue(media, tmp_path):
    images = list(media.square(900, height=64, width=64))
    video = media.video(tmp_path / "scene.mp4", images, options={"preset": "ultrafast"})
    masks = np.stack([image[..., 0] > 200 for image in images]).astype(np.uint8)
    gap = np.arange(900) % 300 == 0
    media.masks(video, masks, np.arange(900) * 40_000_000, gap)
    assert_continues_to_the_same_bytes(video, tmp_path, media)
    store = open_store(tmp_path / "two")
    stored = whole(store)
    np.testing.assert_array_equal(stored.masks, masks)
    np.testing.assert_array_equal(stored.gap, gap)
    assert store.commit("a").counters.gaps == 3


def test_progress_counts_up_to_the_end(long_video, tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr")
    seen = []
    record_file(store, long_video, progress=seen.append)
    assert [progress.frames for progress in seen] == [512, 1024, 1536, 2048, 2500]
    assert {progress.expected_frames for progress in seen} == {2500}
    last = seen[-1]
    assert last.footage_seconds == pytest.approx(2499 / 25)
    assert last.times_real_time == pytest.approx(last.footage_seconds / last.seconds)
    assert last.eta_seconds == 0
    assert seen[0].eta_seconds == pytest.approx(seen[0].seconds * (2500 - 512) / 512)


def test_a_source_that_fails_on_the_way_keeps_its_whole_blocks(media, tmp_path):
    bad = MAX_BAD_PACKETS + 20
    images = media.square(600 + bad, height=32, width=32)
    options = {"bf": "0", "preset": "ultrafast"}
    video = media.video(tmp_path / "v.mp4", images, gop=1, options=options)
    media.overwrite_packets(video, range(600, 600 + bad))
    store = open_store(tmp_path / "store", create_format="zarr")
    with pytest.raises(VideoError, match="did not decode"):
        record_file(store, video)
    commit = store.commit("a")
    assert (commit.length, commit.complete) == (512, False)
    assert len(whole(store)) == 512
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_storage_errors_are_operating_system_errors_too():
    assert issubclass(StorageFullError, OSError)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_stays_open(clip, tmp_path):
    store = open_store(tmp_path / "store", create_format="h5")
    record_file(store, clip)
    whole(store)
    opened = [entry.resolve() for entry in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened if path.is_relative_to(tmp_path)]
