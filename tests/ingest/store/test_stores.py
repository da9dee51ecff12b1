"""One contract for both formats of store."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from killed import killed_in

from ingest.disk.durable import PARTIAL
from ingest.disk.hdf5 import dataset
from ingest.errors import (
    DamagedChunkError,
    NoSuchRecordingError,
    NotAStoreError,
    RecordingExistsError,
    RecordingLockedError,
    ReleasedError,
    StorageFullError,
    StoreError,
)
from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.blobs import LocalBlobs
from ingest.store.cache import ChunkCache
from ingest.store.directory import DirectoryStore
from ingest.store.formats.codec import PixelCodec
from ingest.store.formats.h5_files import H5Files
from ingest.store.formats.zarr_files import ZarrFiles
from ingest.store.layout import StoreLayout
from ingest.store.protocols import RecordingReader, RecordingWriter, Store
from ingest.store.records import CommitRecord, Counters, RecordSettings, Source
from ingest.verify import verify_store

FORMATS = ["zarr", "h5"]
FILES: dict[str, type[ZarrFiles] | type[H5Files]] = {"zarr": ZarrFiles, "h5": H5Files}
SOURCE = Source(path="/videos/a.mp4", size_bytes=10, digest="ab" * 32)


def footage(count: int, *, masks: bool = False, captured: bool = False, seed: int = 0) -> Frames:
    random = np.random.default_rng(seed)
    return Frames(
        images=random.integers(0, 256, (count, 9, 7, 3), np.uint8),
        pts_ns=np.cumsum(random.integers(1, 10**8, count)),
        gap=random.random(count) < 0.1,
        captured_ns=np.arange(count, dtype=np.int64) if captured else None,
        masks=random.integers(0, 4, (count, 9, 7), np.uint8) if masks else None,
    )


def begin(store: Store, name: str = "a", **kwargs) -> RecordingWriter:
    kwargs = {
        "source": SOURCE,
        "settings": RecordSettings(size=None),
        "max_chunk_length": 8,
    } | kwargs
    return store.writer(name, height=9, width=7, **kwargs)


def write_all(
    writer: RecordingWriter, frames: Frames, *, finish: bool = True, before: int = 0
) -> None:
    """Write frames, after a number of others."""
    length = writer.block_length
    for start in range(0, len(frames) - length + 1, length):
        part = frames.part(start, start + length)
        stored = before + start + length
        writer.append(part, Counters(decoded=stored, stored=stored))
    done = len(frames) - len(frames) % length
    if finish:
        tail = frames.part(done, len(frames)) if done < len(frames) else None
        stored = before + len(frames)
        writer.finish(tail, Counters(decoded=stored, stored=stored))


def assert_equal(frames: Frames, expected: Frames) -> None:
    for field in ("images", "pts_ns", "gap", "captured_ns", "masks"):
        np.testing.assert_array_equal(getattr(frames, field), getattr(expected, field), field)


@pytest.fixture(params=FORMATS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create_format=request.param)


@pytest.fixture(scope="module", params=FORMATS)
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RecordingReader, Frames]:
    """A recording of 300 frames with masks, opened with a cache of a few chunks."""
    store = open_store(tmp_path_factory.mktemp("store") / "s", create_format=request.param)
    frames = footage(300, masks=True)
    with begin(store, has_masks=True) as writer:
        write_all(writer, frames)
    return store.reader("a", cache=ChunkCache(4000)), frames


@settings(max_examples=40)
@given(ends=st.tuples(st.integers(0, 300), st.integers(0, 300)), masks=st.booleans())
def test_any_range_reads_back_bit_for_bit(recorded, ends, masks):
    reader, frames = recorded
    start, stop = sorted(ends)
    read = reader.read(start, stop, masks=masks)
    expected = frames.part(start, stop)
    np.testing.assert_array_equal(read.images, expected.images)
    np.testing.assert_array_equal(read.pts_ns, expected.pts_ns)
    np.testing.assert_array_equal(read.gap, expected.gap)
    if masks:
        np.testing.assert_array_equal(read.masks, expected.masks)
    else:
        assert read.masks is None


def test_both_formats_keep_the_protocols(store):
    assert isinstance(store, Store)
    with begin(store) as writer:
        assert isinstance(writer, RecordingWriter)
    with store.reader("a") as reader:
        assert isinstance(reader, RecordingReader)


def test_what_is_read_belongs_to_the_caller(recorded):
    reader, frames = recorded
    reader.read(0, 8).images[:] = 0
    reader.pts_ns()[:] = 0
    np.testing.assert_array_equal(reader.read(0, 8).images, frames.images[:8])
    np.testing.assert_array_equal(reader.pts_ns(), frames.pts_ns)


def test_a_folder_that_is_deleted_under_a_writer_ends_the_recording(store):
    folder = Path(store.location) / "recordings" / "a"
    with begin(store) as writer:
        length = writer.block_length
        writer.append(footage(length), Counters())
        shutil.rmtree(folder)
        with pytest.raises(StoreError, match=r"recording 'a': cannot write \(No such file"):
            writer.append(footage(length), Counters())
        with pytest.raises(StoreError, match=r"cannot write|is damaged"):
            writer.finish(None, Counters())
    assert not folder.exists()
    assert (store.recordings(), store.uncommitted()) == ([], [])


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 301), (5, 4), (400, 410)])
def test_reading_outside_the_committed_range_is_refused(recorded, start, stop):
    with pytest.raises(IndexError, match="300 are committed"):
        recorded[0].read(start, stop)


def test_the_commit_record_tells_what_was_recorded(store):
    frames = footage(200)
    with begin(store, settings=RecordSettings(size=None, fps=12.5)) as writer:
        write_all(writer, frames)
    commit = store.commit("a")
    assert commit.complete
    assert (commit.length, commit.height, commit.width) == (200, 9, 7)
    assert (commit.first_pts_ns, commit.last_pts_ns) == (frames.pts_ns[0], frames.pts_ns[-1])
    assert commit.settings.fps == 12.5
    assert commit.source == SOURCE
    assert commit.counters == Counters(decoded=200, stored=200)
    assert commit.raw_bytes == frames.images.nbytes
    assert 0 < store.size_bytes("a") < 3 * frames.images.nbytes
    assert store.recordings() == ["a"]


def test_a_reader_beside_a_live_writer_sees_only_what_is_committed(store):
    with begin(store, live=True) as writer, store.reader("a") as reader:
        length = writer.block_length
        frames = footage(3 * length, captured=True)
        for block in range(3):
            stop = (block + 1) * length
            writer.append(frames.part(stop - length, stop), Counters(stored=stop, decoded=stop))
            with pytest.raises(IndexError):
                reader.read(0, stop)
            assert reader.refresh().length == stop
            assert not reader.commit.complete
            assert_equal(reader.read(0, stop), frames.part(0, stop))
            np.testing.assert_array_equal(reader.gap(), frames.gap[:stop])
        writer.finish(None, writer.commit.counters)
        assert reader.refresh().complete
        assert_equal(reader.read(0, len(frames)), frames)


def test_a_live_frame_waits_no_longer_than_it_may(store):
    with begin(store, live=True) as writer:
        assert writer.commit.chunk_length <= 8
        assert writer.block_length == 8 or store.format == "h5"


def test_all_that_a_commit_speaks_of_is_synced_before_it(store, monkeypatch):
    synced: list[int] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", watched)
    with begin(store, has_masks=True) as writer:
        write_all(writer, footage(200, masks=True))
    folder = Path(store.location) / "recordings" / "a"
    committed = (folder / "commit.json").stat().st_ino  # an earlier file may have had the number
    before = synced[: len(synced) - 1 - synced[::-1].index(committed)]
    for path in folder.rglob("*"):
        assert path.name == "commit.json" or path.stat().st_ino in before
    for path in (folder, folder.parent):
        assert path.stat().st_ino in synced


@pytest.mark.parametrize("store_format", FORMATS)
def test_without_durability_no_commit_waits_for_the_disk_and_the_bytes_are_the_same(
    store_format, tmp_path, monkeypatch
):
    syncs: list[int] = []
    monkeypatch.setattr(os, "fsync", syncs.append)
    written: dict[bool, dict[str, bytes]] = {}
    for durable in (True, False):
        path = tmp_path / str(durable)
        store = open_store(path, create_format=store_format, durable=durable)
        with begin(store, has_masks=True) as writer:
            syncs.clear()
            write_all(writer, footage(700, masks=True), finish=False)
            assert bool(syncs) == durable
        with begin(open_store(path, durable=durable), has_masks=True) as writer:
            before = writer.commit.length
            write_all(writer, footage(700, masks=True).part(before, 700), before=before)
        (verified,) = list(verify_store(store))
        assert verified.frames == 700
        assert not verified.damaged_chunks
        written[durable] = {
            str(file.relative_to(path)): file.read_bytes()
            for file in path.rglob("*")
            if file.is_file()
        }
    assert written[True] == written[False]


@pytest.mark.parametrize("store_format", FORMATS)
def test_what_was_begun_without_durability_is_synced_when_it_is_complete(
    store_format, tmp_path, monkeypatch
):
    every: list[str] = []
    monkeypatch.setattr(os, "sync", lambda: every.append("all"))
    frames = footage(700)
    with begin(open_store(tmp_path / "s", create_format=store_format, durable=False)) as writer:
        write_all(writer, frames, finish=False)
        assert not writer.commit.durable
        before = writer.commit.length
    assert not every
    with begin(open_store(tmp_path / "s")) as writer:
        write_all(writer, frames.part(before, 700), before=before)
        assert writer.commit.durable
    assert every == ["all"]


def test_what_was_let_go_of_is_off_the_disk_and_told_and_the_rest_stays(store):
    frames = footage(1200, masks=True)
    with begin(store, has_masks=True) as writer:
        write_all(writer, frames, finish=False)
        length, block = writer.commit.length, writer.block_length
        beside = store.reader("a")
        full = store.size_bytes("a")
        assert writer.release(block - 1).released == 0
        assert writer.release(2 * block + 1).released == 2 * block
        assert writer.release(block).released == 2 * block  # nothing comes back
    assert store.size_bytes("a") < full * (length - 2 * block) / length + 100_000
    with beside, store.reader("a") as reader:
        for stale_or_new in (beside, reader):
            with pytest.raises(ReleasedError, match=f"0..3 .* before {2 * block} were deleted"):
                stale_or_new.read(0, 3)
            with pytest.raises(ReleasedError):
                stale_or_new.read(2 * block - 1, 2 * block + 1, masks=True)
            kept = stale_or_new.read(2 * block, length, masks=True)
            np.testing.assert_array_equal(kept.images, frames.images[2 * block : length])
            np.testing.assert_array_equal(kept.masks, frames.masks[2 * block : length])
            np.testing.assert_array_equal(stale_or_new.pts_ns(), frames.pts_ns[:length])
            np.testing.assert_array_equal(stale_or_new.gap(), frames.gap[:length])
    (verified,) = list(verify_store(store))
    assert not verified.damaged_chunks
    with begin(store, has_masks=True) as writer:  # and it goes on
        write_all(writer, frames.part(length, 1200), before=length)
    assert store.commit("a").released == 2 * block
    assert store.commit("a").complete


def test_what_is_let_go_of_while_it_is_verified_is_no_damage(store):
    with begin(store, has_masks=True) as writer, store.reader("a", cache=ChunkCache(0)) as reader:
        write_all(writer, footage(1200, masks=True), finish=False)
        reader.refresh()
        found = []
        for chunk in reader.chunks():
            if chunk.field == "frames" and not found:
                writer.release(writer.commit.length)
            found.append(chunk)
    assert not [chunk.damage for chunk in found if chunk.damage is not None]


def test_a_writer_killed_while_it_lets_go_leaves_no_damage(store):
    frames = footage(1200)
    with begin(store) as writer:
        write_all(writer, frames, finish=False)
        block = writer.block_length
        with killed_in(FILES[store.format], "release"):
            writer.release(block)
        assert writer.commit.released == block  # and nothing takes it back
    with store.reader("a") as reader, pytest.raises(ReleasedError):
        reader.read(0, 1)
    with begin(store) as writer:
        writer.release(2 * block)
    if store.format == "zarr":  # what was left before goes with it
        left = {path.name for path in (Path(store.location) / "recordings/a/frames").glob("c.*")}
        chunk = writer.commit.chunk_length
        assert len(left) == (writer.commit.length - 2 * block) // chunk
    (verified,) = list(verify_store(store))
    assert not verified.damaged_chunks


def test_an_unfinished_recording_continues_behind_its_last_committed_frame(store):
    frames = footage(700)
    with begin(store) as writer:
        write_all(writer, frames.part(0, 300), finish=False)
        committed = writer.commit.length
    assert 0 < committed <= 300
    with begin(store) as writer:
        assert writer.commit.length == committed
        write_all(writer, frames.part(committed, 700))
    with store.reader("a") as reader:
        assert_equal(reader.read(0, 700), frames)


def test_frames_of_the_wrong_size_number_or_kind_are_refused(store):
    with begin(store) as writer:
        length = writer.block_length
        with pytest.raises(ValueError, match="append takes"):
            writer.append(footage(length - 1), Counters())
        with pytest.raises(ValueError, match="masks"):
            writer.append(footage(length, masks=True), Counters())
        with pytest.raises(ValueError, match="live"):
            writer.append(footage(length, captured=True), Counters())
        large = Frames(np.zeros((length, 9, 8, 3), np.uint8), *_times(length))
        with pytest.raises(ValueError, match="recording"):
            writer.append(large, Counters())
    assert store.commit("a").length == 0


def _times(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count, dtype=np.int64), np.zeros(count, np.bool_)


def test_a_complete_recording_takes_no_more_frames(store):
    with begin(store) as writer:
        write_all(writer, footage(10))
    with begin(store) as writer, pytest.raises(StoreError, match="complete"):
        writer.append(footage(writer.block_length), Counters())


def test_black_footage_is_not_a_hole(store):
    black = Frames(np.zeros((100, 9, 7, 3), np.uint8), *_times(100))
    with begin(store) as writer:
        write_all(writer, black)
    with store.reader("a") as reader:
        assert_equal(reader.read(0, 100), black)


def largest_file(folder: Path) -> Path:
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def test_a_flipped_byte_is_noticed_and_its_place_told(store):
    with begin(store) as writer:
        write_all(writer, footage(64))
    path = largest_file(Path(store.location) / "recordings" / "a")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data)
    with (
        store.reader("a") as reader,
        pytest.raises(DamagedChunkError, match=r"recording 'a'.*(chunk|part) .*frames"),
    ):
        reader.read(0, 64)


def test_a_missing_chunk_is_noticed(store):
    with begin(store) as writer:
        write_all(writer, footage(64))
    largest_file(Path(store.location) / "recordings" / "a").unlink()
    with store.reader("a") as reader, pytest.raises(DamagedChunkError, match="recording 'a'"):
        reader.read(0, 64)


@pytest.mark.parametrize("field", ["frames", "gap"])
def test_a_folder_in_place_of_a_chunk_is_told_in_one_line(store, field):
    with begin(store) as writer:
        write_all(writer, footage(64))
    folder = Path(store.location) / "recordings" / "a"
    path = folder / "frames-00000.h5"
    if store.format == "zarr":
        (path,) = (folder / field).glob("c.0*")
    path.unlink()
    path.mkdir()
    with (
        store.reader("a") as reader,
        pytest.raises(DamagedChunkError, match=r"0.*direct") as caught,
    ):
        reader.read(0, 64)
    assert "\n" not in str(caught.value)


def test_lost_times_are_not_made_up_by_continuing(tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr")
    frames = footage(300)
    with begin(store) as writer:
        write_all(writer, frames, finish=False)
        committed = writer.commit.length
    lost = Path(store.location) / "recordings" / "a" / "pts_ns" / "c.0"
    lost.unlink()
    message = r"chunk 0 of `pts_ns`.*missing"
    with begin(store) as writer, pytest.raises(DamagedChunkError, match=message):
        write_all(writer, frames.part(committed, 300), before=committed)
    assert not lost.exists()  # zarr would have put zeros in front of the new times


def test_frames_after_the_last_commit_are_gone_once_it_is_settled_and_it_continues(store):
    frames = footage(500)
    with begin(store) as writer:
        write_all(writer, frames, finish=False)
        committed = writer.commit.length
        with killed_in(StoreLayout, "write_commit"):
            writer.append(frames.part(0, writer.block_length), writer.commit.counters)
        whole = plain_times(store)
        store.settle("a")  # not while another writes
        assert len(plain_times(store)) == len(whole) > committed
    store.settle("a")
    if store.format == "zarr":  # parts of h5 are only deleted by the next writer
        np.testing.assert_array_equal(plain_times(store), frames.pts_ns[:committed])
    with begin(store) as writer:
        assert writer.commit.length == committed
        write_all(writer, frames.part(committed, 500), before=committed)
    np.testing.assert_array_equal(plain_times(store), frames.pts_ns)


def plain_times(store: Store) -> np.ndarray:
    """The times that programs read which know nothing of commit records."""
    folder = Path(store.location) / "recordings" / "a"
    if store.format == "zarr":
        return zarr.open_array(folder / "pts_ns", mode="r")[:]  # type: ignore[return-value]
    with ExitStack() as stack:
        parts = [stack.enter_context(h5py.File(path)) for path in sorted(folder.glob("*.h5"))]
        return np.concatenate([dataset(part, "pts_ns")[:] for part in parts])


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_device(path: Path) -> Iterator[None]:
    """What is written to become `path` goes to a device that answers ENOSPC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=0))
        beside = path.with_name(f".{path.name}.{os.getpid()}.{'0' * 12}{PARTIAL}")
        beside.symlink_to("/dev/full")
        yield
        assert not beside.is_symlink()


def large_footage() -> Frames:
    """Black frames, as many as fit the first block, then noise that does not compress."""
    count = 300
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    images[:128] = 0
    return Frames(images, *_times(count))


def files_of(store: Store) -> dict[str, bytes]:
    folder = Path(store.location) / "recordings"
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("store_format", "exhausted"),
    [
        ("zarr", None),
        ("zarr", "frames/c.8.0.0.0"),
        ("zarr", "pts_ns/c.0"),
        ("zarr", "gap/zarr.json"),
        ("zarr", "commit.json"),
        ("h5", None),
        ("h5", "frames-00001.h5"),
        ("h5", "commit.json"),
    ],
)
def test_a_full_disk_keeps_what_was_committed_and_is_followed(tmp_path, store_format, exhausted):
    """Either a limit on the size of files, or one file that lies on a device without space."""
    frames = large_footage()
    whole = open_store(tmp_path / "whole", create_format=store_format)
    store = open_store(tmp_path / "full", create_format=store_format)
    begin_large = partial(
        DirectoryStore.writer,
        name="a",
        source=SOURCE,
        settings=RecordSettings(size=None),
        height=64,
        width=64,
        max_chunk_length=8,
    )
    with begin_large(whole) as writer:
        write_all(writer, frames)
    with begin_large(store) as writer:
        length = writer.block_length
        writer.append(frames.part(0, length), Counters(decoded=length, stored=length))
        path = Path(store.location) / "recordings" / "a" / (exhausted or "")
        full = full_device(path) if exhausted else file_size_limit(50_000)
        what = "disk" if exhausted else "file size limit"
        with full, pytest.raises(StorageFullError, match=f"the {what} is exhausted.*free some"):
            write_all(writer, frames.part(length, len(frames)), before=length)
    assert not store.leftovers("a")
    committed = store.commit("a").length
    assert length <= committed < len(frames)
    with store.reader("a") as reader:
        assert_equal(reader.read(0, committed), frames.part(0, committed))
    with begin_large(store) as writer:
        write_all(writer, frames.part(committed, len(frames)), before=committed)
    assert files_of(store) == files_of(whole)


def test_a_second_writer_is_kept_off_and_readers_are_not(store):
    with begin(store):
        with pytest.raises(RecordingLockedError, match=f"process {os.getpid()} is writing"):
            begin(store)
        with pytest.raises(RecordingLockedError):
            store.remove("a")
        with begin(store, "b"), store.reader("a") as reader:
            assert reader.commit.length == 0
    begin(store).close()


def test_the_lock_of_a_killed_writer_is_gone(store):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ingest.store.blobs import LocalBlobs\n"
        "from ingest.store.layout import StoreLayout\n"
        "lock = StoreLayout.open(LocalBlobs(Path(sys.argv[1]))).lock('a')\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, store.location], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(RecordingLockedError, match=f"process {child.pid} "):
            begin(store)
        child.send_signal(signal.SIGKILL)
        child.wait(20)
        begin(store).close()


@contextmanager
def only_reading(folder: Path) -> Iterator[None]:
    """Nothing under a folder can be written to, not even by root."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("store_format", FORMATS)
def test_a_read_only_store_is_read_and_refuses_writers_in_one_line(store_format):
    with tempfile.TemporaryDirectory() as folder:  # which others may enter, unlike tmp_path
        Path(folder).chmod(0o755)
        store = open_store(Path(folder) / "store", create_format=store_format)
        with begin(store) as writer:
            write_all(writer, footage(50))
        with only_reading(Path(folder)):
            store = open_store(store.location)
            with store.reader("a") as reader:
                assert_equal(reader.read(0, 50), footage(50))
            for write in (lambda: begin(store, "b"), lambda: store.remove("a")):
                with pytest.raises(StoreError, match=r"cannot write .Permission denied.*rights"):
                    write()
            with pytest.raises(StoreError, match=r"cannot write .Permission denied.*rights"):
                open_store(Path(folder) / "other", create_format=store_format)
        assert store.recordings() == ["a"]


def write_as_before(store: Store, frames: Frames) -> None:
    """A recording as the first version wrote it: zstd 3 in blocks of Blosc's own choice."""
    codec = PixelCodec(level=3, block_bytes=0)
    files = partial(FILES[store.format], codec=codec)
    older = DirectoryStore(StoreLayout.open(LocalBlobs(Path(store.location))), files)
    with begin(older, has_masks=True) as writer:
        write_all(writer, frames)
    if store.format == "h5":  # it left the compression to HDF5
        for path in (Path(store.location) / "recordings" / "a").glob("*.h5"):
            with h5py.File(path) as file:
                data = {name: dataset(file, name)[:] for name in file}
            with h5py.File(path, "w", libver="v112") as file:
                for name, values in data.items():
                    blosc = hdf5plugin.Blosc(cname="zstd", clevel=3, shuffle=2)
                    kwargs = {"chunks": (min(8, len(values)), *values.shape[1:]), **blosc}
                    kwargs = kwargs if name in ("frames", "masks") else {"chunks": True}
                    file.create_dataset(name, data=values, fletcher32=True, **kwargs)


def test_a_store_of_the_first_version_still_reads(store):
    frames = footage(300, masks=True)
    write_as_before(store, frames)
    with store.reader("a") as reader:
        assert_equal(reader.read(0, 300, masks=True), frames)


def test_parts_without_attributes_still_read(tmp_path):
    store = open_store(tmp_path / "store", create_format="h5")
    frames = footage(300, masks=True)
    with begin(store, has_masks=True) as writer:
        write_all(writer, frames)
    for path in (Path(store.location) / "recordings" / "a").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            for written in (file, *file.values()):
                assert len(written.attrs) == 1
                written.attrs.clear()
    with store.reader("a") as reader:
        assert_equal(reader.read(0, 300, masks=True), frames)


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ("a/frames-00001.h5", "start 128, not 0"),
        ("another source/frames-00000.h5", "source .*cdcd"),
        ("other settings/frames-00000.h5", "settings .*fps=12.5"),
    ],
)
def test_a_part_of_another_place_or_recording_is_damaged(tmp_path, origin, told):
    store = open_store(tmp_path / "store", create_format="h5")
    another = Source(path="/b.mp4", size_bytes=10, digest="cd" * 32)
    slower = RecordSettings(size=None, fps=12.5)
    kinds = {"a": {}, "another source": {"source": another}, "other settings": {"settings": slower}}
    for name, kwargs in kinds.items():
        with begin(store, name, **kwargs) as writer:
            write_all(writer, footage(300))
    folder = Path(store.location) / "recordings"
    shutil.copy(folder / origin, folder / "a" / "frames-00000.h5")
    with store.reader("a") as reader, pytest.raises(DamagedChunkError, match=told):
        reader.read(0, 20)
    with pytest.raises(DamagedChunkError, match=told):
        H5Files(LocalBlobs(folder / "a"), "a").pixels("frames", 0, store.commit("a"))


@pytest.mark.parametrize(
    ("origin", "place", "told"),
    [
        ("a/frames/c.1.0.0.0", "frames/c.2.0.0.0", "chunk 2 of `frames`.*it is chunk 1, not 2"),
        ("b/frames/c.2.0.0.0", "frames/c.2.0.0.0", "chunk 2 of `frames`.* another recording"),
        ("a/masks/c.0.0.0", "masks/c.2.0.0", "chunk 2 of `masks`.*it is chunk 0, not 2"),
        ("b/pts_ns/c.0", "pts_ns/c.0", "chunk 0 of `pts_ns`.* another recording"),
        ("a/captured_ns/c.0", "pts_ns/c.0", "chunk 0 of `pts_ns`.* or field"),
        ("b/gap/c.0", "gap/c.0", "chunk 0 of `gap`.* another recording"),
    ],
)
def test_an_intact_chunk_of_another_place_or_recording_is_damaged(tmp_path, origin, place, told):
    store = open_store(tmp_path / "store", create_format="zarr")
    another = Source(path="/b.mp4", size_bytes=10, digest="cd" * 32)
    for name, source in {"a": SOURCE, "b": another}.items():
        with begin(store, name, source=source, has_masks=True, live=True) as writer:
            write_all(writer, footage(40, masks=True, captured=True))
    folder = Path(store.location) / "recordings"
    shutil.copy(folder / origin, folder / "a" / place)
    with store.reader("a") as reader, pytest.raises(DamagedChunkError, match=told):
        reader.read(0, 40, masks=True)
    (verified, _) = verify_store(store)
    assert verified.damaged_chunks == 1
    assert re.search(told, verified.faults[0])


def test_chunks_without_marks_are_read_and_continued_where_their_array_promises_none(tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr")
    frames = footage(300)
    folder = Path(store.location) / "recordings" / "a"
    with begin(store) as writer:
        for path in folder.glob("*/zarr.json"):
            path.write_text(path.read_text().replace("chunks_are_marked", "of_old"))
        writer.append(frames.part(0, 64), Counters(decoded=64, stored=64))
    with begin(store) as writer:
        write_all(writer, frames.part(64, 300), before=64)
    with store.reader("a") as reader:
        assert_equal(reader.read(0, 300), frames)
    for path in folder.glob("*/zarr.json"):
        path.write_text(path.read_text().replace("of_old", "chunks_are_marked"))
    with store.reader("a") as reader, pytest.raises(DamagedChunkError, match="of another"):
        reader.read(0, 300)


@pytest.mark.parametrize("codec", [PixelCodec(), PixelCodec(name="lz4", block_bytes=0)])
@pytest.mark.parametrize("is_noise", [True, False])
def test_plain_zarr_reads_marked_chunks(tmp_path, codec, is_noise):
    layout = StoreLayout.create(LocalBlobs(tmp_path / "store"), "zarr")
    frames = footage(100, masks=True)
    frames = frames if is_noise else replace(frames, images=frames.images // 64)
    store = DirectoryStore(layout, partial(ZarrFiles, codec=codec))
    with begin(store, has_masks=True) as writer:
        write_all(writer, frames)
    for field in ("frames", "masks", "pts_ns", "gap"):
        found = zarr.open_array(Path(store.location) / "recordings" / "a" / field, mode="r")[:]
        expected = frames.images if field == "frames" else getattr(frames, field)
        np.testing.assert_array_equal(found, expected)


def test_times_of_another_type_are_damaged(tmp_path):
    store = open_store(tmp_path / "store", create_format="h5")
    with begin(store) as writer:
        write_all(writer, footage(20))
    with h5py.File(Path(store.location) / "recordings" / "a" / "frames-00000.h5", "r+") as file:
        values = dataset(file, "pts_ns")[:]
        del file["pts_ns"]
        file.create_dataset("pts_ns", data=values.astype(np.float64))
    with store.reader("a") as reader, pytest.raises(DamagedChunkError, match="float64, not int64"):
        reader.read(0, 20)


def test_parts_have_nothing_that_hdf5_1_10_does_not_know(tmp_path):
    """HDF5 1.12 changed types (4), and later releases the rest."""
    store = open_store(tmp_path / "store", create_format="h5")
    with begin(store, has_masks=True, live=True) as writer:
        write_all(writer, footage(100, masks=True, captured=True))
    data = (Path(store.location) / "recordings" / "a" / "frames-00000.h5").read_bytes()
    assert data[8] == 3  # the superblock
    newest = {0x01: 2, 0x03: 3, 0x05: 3, 0x08: 4, 0x0B: 2, 0x0C: 3}  # dataspace to attribute
    found = list(header_messages(data))
    assert newest.keys() <= {kind for kind, _ in found}
    for kind, message in found:
        if kind in newest:
            version = message[0] >> 4 if kind == 0x03 else message[0]
            assert version <= newest[kind], hex(kind)


def header_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of what is in the first block of each object's header, of version 2."""
    at = data.find(b"OHDR")
    while at >= 0:
        flags = data[at + 5]
        place = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        end = place + width + int.from_bytes(data[place : place + width], "little")
        place += width
        while place + 4 <= end:
            length = int.from_bytes(data[place + 1 : place + 3], "little")
            content = place + 4 + (2 if flags & 4 else 0)
            yield data[place], data[content : content + length]
            place = content + length
        at = data.find(b"OHDR", at + 4)


def test_h5py_without_the_filter_has_the_times_and_says_that_it_lacks_the_pixels(tmp_path):
    store = open_store(tmp_path / "store", create_format="h5")
    with begin(store) as writer:
        write_all(writer, footage(20))
    part = Path(store.location) / "recordings" / "a" / "frames-00000.h5"
    script = (
        f"import h5py; part = h5py.File({str(part)!r}); "
        "print(len(part['pts_ns'][:])); part['frames'][0]"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "20\n"
    assert re.search(r"OSError: Can't (synchronously )?read data \(", done.stderr)


def test_plain_h5py_sees_exactly_what_was_recorded(tmp_path):
    store = open_store(tmp_path / "store", create_format="h5")
    frames = footage(100, masks=True)  # the last chunk is not full
    with begin(store, has_masks=True) as writer:
        write_all(writer, frames)
    with h5py.File(Path(store.location) / "recordings" / "a" / "frames-00000.h5") as file:
        for field in ("frames", "masks", "pts_ns", "gap"):
            expected = frames.images if field == "frames" else getattr(frames, field)
            np.testing.assert_array_equal(dataset(file, field)[:], expected)


def test_readers_that_share_a_cache_keep_to_its_size_and_to_themselves(store):
    frames = {name: footage(300, seed=seed) for seed, name in enumerate("ab")}
    for name in frames:
        with begin(store, name) as writer:
            write_all(writer, frames[name])
    cache = ChunkCache(6000)  # four chunks
    with store.reader("a", cache=cache) as a, store.reader("b", cache=cache) as b:
        for start in range(0, 290, 3):
            assert_equal(a.read(start, start + 10), frames["a"].part(start, start + 10))
            assert_equal(b.read(start, start + 10), frames["b"].part(start, start + 10))
            assert 0 < cache.nbytes <= 6000
    assert cache.nbytes == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"source": Source(path="/b.mp4", size_bytes=9, digest="cd" * 32)}, "made from .*a.mp4"),
        ({"settings": RecordSettings(size=None, fit="pad")}, r"fit=crop \(asked: pad\)"),
        ({"has_masks": True}, "masks: False"),
    ],
)
def test_another_source_or_other_settings_are_refused(store, changed, message):
    begin(store).close()
    with pytest.raises(RecordingExistsError, match=message):
        begin(store, **changed)
    begin(store).close()  # the refusal left no lock behind


def test_a_source_that_only_moved_is_still_the_same(store):
    begin(store).close()
    moved = Source(path="/elsewhere/a.mp4", size_bytes=10, digest="ab" * 32)
    begin(store, source=moved).close()


def test_overwrite_replaces_the_named_recording_and_nothing_else(store):
    for name in ("a", "b"):
        with begin(store, name) as writer:
            write_all(writer, footage(50))
    other = Source(path="/c.mp4", size_bytes=9, digest="cd" * 32)
    with begin(store, source=other, overwrite=True) as writer:
        assert writer.commit.length == 0
        write_all(writer, footage(20, seed=1))
    with store.reader("a") as a, store.reader("b") as b:
        assert_equal(a.read(0, 20), footage(20, seed=1))
        assert_equal(b.read(0, 50), footage(50))
    assert sorted(
        p.name for p in (Path(store.location) / "recordings").glob("*") if p.is_dir()
    ) == ["a", "b"]


def test_removing_a_recording_leaves_the_others(store):
    begin(store, "a").close()
    begin(store, "b").close()
    store.remove("a")
    assert store.recordings() == ["b"]
    with pytest.raises(NoSuchRecordingError, match="no recording 'a'; it holds: b"):
        store.commit("a")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 300, "a\nb"])
def test_a_name_that_could_leave_its_folder_is_refused(store, name):
    with pytest.raises(StoreError, match="cannot name a recording"):
        begin(store, name)


def test_leftovers_of_a_writer_killed_before_its_first_commit_do_not_count(store):
    folder = Path(store.location) / "recordings" / "a"
    folder.mkdir()
    (folder / "frames").write_bytes(b"half a file")
    assert store.recordings() == []
    with begin(store) as writer:
        write_all(writer, footage(10))
    with store.reader("a") as reader:
        assert_equal(reader.read(0, 10), footage(10))


def commit_file(store: Store, name: str = "a") -> Path:
    return Path(store.location) / "recordings" / name / "commit.json"


def change_commit(store: Store, **changes: object) -> None:
    path = commit_file(store)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "garbage", [b"", b'{"version":1,"leng', b"\xff\xfe", b"[]", b'{"x":' + 9999 * b"["]
)
def test_a_commit_record_that_is_garbage_is_told_with_its_remedy(store, garbage):
    begin(store).close()
    commit_file(store).write_bytes(garbage)
    with pytest.raises(
        StoreError, match=r"damaged commit record.*; restore it, or delete .*ingest"
    ):
        store.commit("a")


@pytest.mark.parametrize(
    "changes",
    [
        {"length": -1},
        {"length": 10**15},
        {"length": 10**30},
        {"height": 0},
        {"width": 10**6},
        {"chunk_length": 0},
        {"first_pts_ns": None},
        {"last_pts_ns": -5},
        {"length": 0},
        {"counters": {"stored": -1}},
        {"source": {"path": "a", "size_bytes": -1}},
        {"settings": {"fps": 1e300}},
    ],
)
def test_a_commit_record_that_no_writer_wrote_is_damaged(store, changes):
    with begin(store) as writer:
        write_all(writer, footage(20))
    change_commit(store, **changes)
    with pytest.raises(StoreError, match="damaged commit record"):
        store.reader("a")


@pytest.mark.parametrize(
    "changes", [{"length": 301}, {"length": 10**9}, {"height": 8}, {"chunk_length": 16}]
)
def test_frames_that_are_not_as_the_commit_record_says_are_damaged(store, changes):
    with begin(store) as writer:
        write_all(writer, footage(300))
    change_commit(store, **changes)
    with store.reader("a") as reader, pytest.raises(DamagedChunkError, match="recording 'a'"):
        reader.read(reader.commit.length - 20, reader.commit.length)


@pytest.mark.parametrize("field", ["frames", "gap"])
@pytest.mark.parametrize("garbage", ["[]", "{}", "null", "?", '{"shape": []}'])
def test_damaged_metadata_of_an_array_is_told_by_recording(tmp_path, field, garbage):
    store = open_store(tmp_path / "store", create_format="zarr")
    with begin(store) as writer:
        write_all(writer, footage(20))
    (Path(store.location) / "recordings" / "a" / field / "zarr.json").write_text(garbage)
    with (
        store.reader("a") as reader,
        pytest.raises(DamagedChunkError, match=f"recording 'a': chunk 0 of `{field}`"),
    ):
        reader.read(0, 20)


def test_one_flipped_bit_that_leads_zarr_to_other_files_is_told(tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr")
    with begin(store) as writer:
        write_all(writer, footage(20))
    path = Path(store.location) / "recordings" / "a" / "gap" / "zarr.json"
    path.write_text(path.read_text().replace('"separator": "."', '"separator": "/"'))
    with store.reader("a") as reader, pytest.raises(DamagedChunkError, match=r"`gap`.*named with"):
        reader.read(0, 20)


@pytest.mark.parametrize("fps", [0.0, -1.0, 1e-9, 1e300, float("inf"), float("nan")])
def test_a_rate_that_no_clock_can_keep_is_refused(fps):
    found = re.escape(str(fps))
    with pytest.raises(ValueError, match=rf"fps must lie in 0\.001\.\.1000000, got {found}"):
        RecordSettings(fps=fps)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": -1}, rf"length must lie in 0\.\.{1 << 40}, got -1"),
        ({"width": 0}, r"width must lie in 1\.\.15000, got 0"),
        ({"chunk_length": 1025}, r"chunk_length must lie in 1\.\.1024, got 1025"),
        ({"released": 1}, r"released must lie in 0\.\.0, got 1"),
        ({"counters": Counters(dropped=-1)}, "dropped must be at least 0, got -1"),
        ({"source": Source(path="/a", size_bytes=-1)}, "size_bytes must be at least 0, got -1"),
        ({"first_pts_ns": 5}, r"first_pts_ns .* 0 frames, got \(5, None\)"),
        ({"length": 2, "first_pts_ns": 5, "last_pts_ns": 4}, r"of 2 frames, got \(5, 4\)"),
    ],
)
def test_a_commit_record_that_cannot_be_is_refused(fields, message):
    made_from = {"source": Source(path="/a"), "settings": RecordSettings()}
    with pytest.raises(ValueError, match=message):
        CommitRecord(**({"height": 9, "width": 7, "chunk_length": 8} | made_from | fields))


def test_opening_again_finds_the_format(store):
    begin(store).close()
    again = open_store(store.location)
    assert again.format == store.format
    assert again.recordings() == ["a"]


def test_another_format_than_the_store_has_is_refused(store):
    other = "h5" if store.format == "zarr" else "zarr"
    with pytest.raises(NotAStoreError, match=f"of format {store.format}, not {other}"):
        open_store(store.location, create_format=other)


@pytest.mark.parametrize("create_format", [None, *FORMATS])
def test_a_path_that_is_not_a_store_is_refused_and_left_alone(tmp_path, create_format):
    (tmp_path / "holiday.txt").write_text("keep me")
    with pytest.raises(NotAStoreError, match="a directory with other files"):
        open_store(tmp_path, create_format=create_format)
    with pytest.raises(NotAStoreError, match="not a store but a file"):
        open_store(tmp_path / "holiday.txt", create_format=create_format)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


def test_a_store_that_is_not_there_is_not_made_by_reading(tmp_path):
    with pytest.raises(NotAStoreError, match="no such store"):
        open_store(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_store_of_another_version_is_refused(tmp_path):
    (tmp_path / "store.json").write_text('{"what":"setcon store","format":"zarr","version":99}')
    with pytest.raises(NotAStoreError, match="version 99"):
        open_store(tmp_path)


def test_plain_zarr_sees_exactly_what_was_recorded(tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr")
    frames = footage(100, masks=True)
    with begin(store, has_masks=True) as writer:
        write_all(writer, frames)
    group = zarr.open_group(store.location, mode="r")["recordings/a"]
    assert isinstance(group, zarr.Group)
    assert group["frames"].shape == (100, 9, 7, 3)
    for field, expected in (
        ("frames", frames.images),
        ("masks", frames.masks),
        ("gap", frames.gap),
    ):
        np.testing.assert_array_equal(group[field][:], expected)
    assert group["pts_ns"][-1] == frames.pts_ns[-1]


def test_a_zarr_recording_grows_far_beyond_its_first_capacity(tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr")
    frames = footage(9000)
    with begin(store, max_chunk_length=64) as writer:
        assert writer.block_length < 4096
        write_all(writer, frames)
    with store.reader("a") as reader:
        assert_equal(reader.read(0, 9000), frames)


@settings(max_examples=40)
@given(
    length=st.integers(0, 2**40),
    complete=st.booleans(),
    fps=st.none() | st.floats(0.1, 1000),
    path=st.text(st.characters(exclude_categories=["Cs"])),
    decoded=st.integers(0, 2**40),
)
def test_a_commit_record_survives_its_file(tmp_path_factory, length, complete, fps, path, decoded):
    store = tmp_path_factory.getbasetemp() / "records"
    if not store.exists():
        open_store(store, create_format="h5")
        begin(open_store(store)).close()
    commit = CommitRecord(
        length=length,
        complete=complete,
        height=9,
        width=7,
        chunk_length=8,
        source=Source(path=path, digest="00"),
        settings=RecordSettings(fps=fps),
        first_pts_ns=0 if length else None,
        last_pts_ns=length or None,
        counters=Counters(decoded=decoded),
    )
    layout = StoreLayout.open(LocalBlobs(store))
    lease = layout.lock("a")
    layout.write_commit(commit, lease)
    lease.release()
    assert layout.commit("a") == commit
