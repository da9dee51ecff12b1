import logging
from pathlib import Path

import av
import h5py
import numpy as np
import pytest

from ingest.errors import DamagedChunkError, ExportError, NoSuchRecordingError
from ingest.export import export_recording
from ingest.frame import Frames
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.scenes.balls import BallsConfig
from ingest.scenes.sprites import SpritesConfig
from ingest.scenes.video import render_scene
from ingest.store.protocols import Store
from ingest.store.records import Counters, RecordSettings, Source
from ingest.verify import verify_store
from ingest.video.open import open_video

MICROSECOND = 1000


def store_of(
    folder: Path, images: np.ndarray, pts_ns: np.ndarray, *, masks: np.ndarray | None = None
) -> Store:
    """A store with one recording, `a`, of the given frames."""
    store = open_store(folder / "store", create_format="zarr")
    length = len(images)
    gap = np.arange(length) % 7 == 0
    with store.writer(
        "a",
        source=Source(path="/a.mp4", size_bytes=1, digest="ab"),
        settings=RecordSettings(size=None),
        height=images.shape[1],
        width=images.shape[2],
        has_masks=masks is not None,
        max_chunk_length=8,
    ) as writer:
        block = writer.block_length
        for start in range(0, length, block):
            part = slice(start, start + block)
            frames = Frames(
                images=images[part],
                pts_ns=np.asarray(pts_ns[part], np.int64),
                gap=gap[part],
                masks=None if masks is None else masks[part],
            )
            done = start + len(frames)
            counters = Counters(decoded=done, stored=done, gaps=int(gap[:done].sum()))
            if done < length:
                writer.append(frames, counters)
            else:
                writer.finish(frames, counters)
    return store


def squares(media, count: int) -> np.ndarray:
    return np.stack(list(media.square(count)))


def uneven(count: int, *, first_ns: int = 0) -> np.ndarray:
    steps = np.random.default_rng(1).integers(3_000_000, 90_000_000, count)
    return first_ns + np.cumsum(steps) - steps[0]


def read_back(path: Path) -> Frames:
    with open_video(path, size=None) as video:
        return Frames.stack(list(video.frames()))


def psnr(images: np.ndarray, expected: np.ndarray) -> float:
    error = np.mean((images.astype(float) - expected) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "store")


@pytest.mark.parametrize(
    "config", [SpritesConfig(num_frames=150), BallsConfig(num_frames=150, episode_frames=40)]
)
def test_ingesting_the_export_gives_the_recording_back(config, tmp_path):
    scene = render_scene(config, tmp_path / "scene.mp4").video
    settings = RecordSettings(size=None)
    ingest_sources([str(scene)], tmp_path / "store", settings)
    store = open_store(tmp_path / "store")
    exported = export_recording(store, "scene", tmp_path / "out.mp4")
    assert exported.sidecar == tmp_path / "out.masks.h5"
    assert exported.frames == 150
    ingest_sources([str(exported.video)], tmp_path / "store", settings)
    assert all(found.ok for found in verify_store(store))
    with store.reader("scene") as before, store.reader("out") as after:
        one, other = before.read(0, 150, masks=True), after.read(0, 150, masks=True)
    np.testing.assert_array_equal(other.masks, one.masks)
    np.testing.assert_array_equal(other.gap, one.gap)
    assert np.abs(other.pts_ns - one.pts_ns).max() < MICROSECOND
    assert psnr(other.images, one.images) > 35


@pytest.mark.parametrize("first_ns", [0, 400_000_123, 3_600 * 10**9, 1_700_000_000 * 10**9])
def test_times_stay_as_they_are_wherever_they_begin(first_ns, media, tmp_path):
    images, pts_ns = squares(media, 60), uneven(60, first_ns=first_ns)
    exported = export_recording(store_of(tmp_path, images, pts_ns), "a", tmp_path / "out.mp4")
    assert exported.sidecar is None
    found = read_back(exported.video)
    assert np.abs(found.pts_ns - pts_ns).max() < MICROSECOND
    assert psnr(found.images, images) > 35
    assert names(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize(
    ("gap_seconds", "tick_ns"), [(1800, 1000), (6 * 3600, 11_112), (59 * 3600, 100_000)]
)
def test_a_long_gap_is_kept_in_a_coarser_time_base(gap_seconds, tick_ns, media, tmp_path):
    pts_ns = uneven(20)
    pts_ns[12:] += gap_seconds * 10**9
    store = store_of(tmp_path, squares(media, 20), pts_ns)
    found = read_back(export_recording(store, "a", tmp_path / "out.mp4").video)
    assert np.abs(found.pts_ns - pts_ns).max() < tick_ns
    assert found.gap[12]


def test_a_gap_that_no_mp4_can_hold_is_refused(media, tmp_path):
    pts_ns = uneven(20)
    pts_ns[12:] += 60 * 3600 * 10**9
    store = store_of(tmp_path, squares(media, 20), pts_ns)
    with pytest.raises(ExportError, match="apart, which no time base of an mp4 can hold"):
        export_recording(store, "a", tmp_path / "out.mp4")
    assert names(tmp_path) == []
    assert export_recording(store, "a", tmp_path / "out.mp4", seconds=10.0).frames == 12


def test_a_recording_from_before_time_0_is_moved_there_with_its_masks(media, tmp_path, caplog):
    pts_ns = uneven(20, first_ns=-150_000_000)
    masks = np.arange(20, dtype=np.uint8)[:, None, None] + np.zeros((20, 48, 64), np.uint8)
    store = store_of(tmp_path, squares(media, 20), pts_ns, masks=masks)
    with caplog.at_level(logging.WARNING):
        exported = export_recording(store, "a", tmp_path / "out.mp4")
    assert "begins before time 0; shifted by 0.150000 s" in caplog.text
    found = read_back(exported.video)
    assert np.abs(found.pts_ns - pts_ns - 150_000_000).max() < MICROSECOND
    np.testing.assert_array_equal(found.masks, masks)


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (3, 5), (2, 2), (33, 64), (64, 31)])
def test_every_size_comes_back_as_it_is(size, tmp_path):
    ramp = np.linspace(20, 230, size[0] * size[1]).reshape(1, *size, 1)
    images = np.broadcast_to(ramp, (5, *size, 3)).astype(np.uint8)
    store = store_of(tmp_path, images, 40_000_000 * np.arange(5))
    found = read_back(export_recording(store, "a", tmp_path / "out.mp4").video)
    assert found.images.shape == images.shape
    assert psnr(found.images, images) > 35


@pytest.mark.parametrize(
    ("start", "seconds", "frames"),
    [
        (0.0, None, range(100)),
        (1.0, None, range(25, 100)),
        (0.4, 0.2, range(10, 15)),
        (3.96, 9.0, [99]),
    ],
)
def test_an_excerpt_begins_and_ends_where_asked_and_keeps_its_times(
    start, seconds, frames, media, tmp_path
):
    first_ns = 5_000_000_000
    masks = np.arange(100, dtype=np.uint8)[:, None, None] + np.zeros((100, 48, 64), np.uint8)
    pts_ns = first_ns + 40_000_000 * np.arange(100)
    store = store_of(tmp_path, squares(media, 100), pts_ns, masks=masks)
    calls: list[tuple[int, int]] = []
    exported = export_recording(
        store,
        "a",
        tmp_path / "out.mp4",
        start=start,
        seconds=seconds,
        progress=lambda done, of: calls.append((done, of)),
    )
    assert calls[-1] == (exported.frames, len(frames))
    assert exported.duration_seconds == pytest.approx(0.04 * (len(frames) - 1))
    found = read_back(exported.video)
    assert found.pts_ns.tolist() == pts_ns[frames].tolist()
    np.testing.assert_array_equal(found.masks, masks[frames])


def test_no_frame_in_the_excerpt_is_an_error(media, tmp_path):
    store = store_of(tmp_path, squares(media, 20), uneven(20))
    with pytest.raises(ExportError, match=r"no frame from 90 s on for 2 s, its last one is at 0"):
        export_recording(store, "a", tmp_path / "out.mp4", start=90.0, seconds=2.0)


def test_a_recording_at_work_is_exported_as_far_as_it_is_committed(media, tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr")
    frames = Frames(
        images=squares(media, 64), pts_ns=40_000_000 * np.arange(64), gap=np.zeros(64, bool)
    )
    source = Source(path="/a.mp4", size_bytes=1, digest="ab")
    settings = RecordSettings(size=None)
    with store.writer(
        "a", source=source, settings=settings, height=48, width=64, max_chunk_length=8
    ) as writer:
        with pytest.raises(ExportError, match="no frame is committed yet"):
            export_recording(store, "a", tmp_path / "out.mp4")
        writer.append(frames.part(0, writer.block_length), Counters())
        exported = export_recording(store, "a", tmp_path / "out.mp4")
        assert exported.frames == writer.block_length


@pytest.mark.parametrize("name", ["out.mp4", "out.masks.h5"])
def test_nothing_is_overwritten_unless_asked(name, media, tmp_path):
    store = store_of(tmp_path, squares(media, 20), uneven(20))
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ExportError, match=rf"{name}: exists; .*--overwrite"):
        export_recording(store, "a", tmp_path / "out.mp4")
    assert (tmp_path / name).read_bytes() == b"mine"
    export_recording(store, "a", tmp_path / "out.mp4", overwrite=True)
    assert names(tmp_path) == ["out.mp4"]  # masks of another video would be taken for its own
    assert len(read_back(tmp_path / "out.mp4")) == 20


def test_damage_leaves_the_files_that_were_there(media, tmp_path):
    masks = np.zeros((40, 48, 64), np.uint8)
    store = store_of(tmp_path, squares(media, 40), uneven(40), masks=masks)
    video = export_recording(store, "a", tmp_path / "out.mp4").video
    before = video.read_bytes()
    (tmp_path / "store/recordings/a/frames/c.3.0.0.0").write_bytes(b"spoilt")
    with pytest.raises(DamagedChunkError, match="chunk 3 of `frames`"):
        export_recording(store, "a", video, overwrite=True)
    assert video.read_bytes() == before
    assert names(tmp_path) == ["out.masks.h5", "out.mp4"]


def test_what_cannot_be_written_is_told_in_one_line(media, tmp_path):
    store = store_of(tmp_path, squares(media, 20), uneven(20))
    with pytest.raises(ExportError, match=r"out\.avi: a recording is written as \.mp4, not \.avi"):
        export_recording(store, "a", tmp_path / "out.avi")
    with pytest.raises(ExportError, match=r"absent: no such folder; make it"):
        export_recording(store, "a", tmp_path / "absent" / "out.mp4")
    with pytest.raises(NoSuchRecordingError, match="it holds: a"):
        export_recording(store, "b", tmp_path / "out.mp4")


def test_the_files_say_what_they_are(media, tmp_path):
    masks = np.zeros((20, 48, 64), np.uint8)
    store = store_of(tmp_path, squares(media, 20), uneven(20), masks=masks)
    exported = export_recording(store, "a", tmp_path / "out.mp4")
    with av.open(exported.video) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        assert (stream.codec_context.name, frame.format.name) == ("h264", "yuv444p")
        assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited
    assert exported.sidecar is not None
    with h5py.File(exported.sidecar) as sidecar:
        assert dict(sidecar.attrs) == {"recording": "a", "source": "/a.mp4"}
