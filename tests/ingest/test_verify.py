import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from ingest.errors import StoreError
from ingest.frame import Frames
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.store.formats.h5_files import H5Files
from ingest.store.formats.zarr_files import ZarrFiles
from ingest.store.protocols import RecordingWriter, Store
from ingest.store.records import Counters, RecordSettings, Source
from ingest.verify import Verified, VerifyProgress, verify_store
from terminal.recordings import verified_text

SOURCE = Source(path="/videos/a.mp4", size_bytes=10, digest="ab" * 32)


def footage(count: int) -> Frames:
    random = np.random.default_rng(0)
    gap = random.random(count) < 0.1
    gap[0] = True
    return Frames(
        images=random.integers(0, 256, (count, 9, 7, 3), np.uint8),
        pts_ns=np.cumsum(random.integers(1, 10**8, count)),
        gap=gap,
        captured_ns=np.arange(count, dtype=np.int64),
        masks=random.integers(0, 4, (count, 9, 7), np.uint8),
    )


def begin(store: Store, name: str = "a") -> RecordingWriter:
    return store.writer(
        name,
        source=SOURCE,
        settings=RecordSettings(size=None),
        height=9,
        width=7,
        has_masks=True,
        live=True,
        max_chunk_length=8,
    )


def write(store: Store, frames: Frames, *, name: str = "a", finish: bool = True) -> None:
    """Write a recording whose counters are right."""
    with begin(store, name) as writer:
        length = writer.block_length
        for stop in range(length, len(frames) + 1, length):
            counters = counters_of(frames.part(0, stop))
            writer.append(frames.part(stop - length, stop), counters)
        if finish:
            tail = frames.part(len(frames) - len(frames) % length, len(frames))
            writer.finish(tail, counters_of(frames))


def counters_of(frames: Frames) -> Counters:
    stored, gaps = len(frames), int(frames.gap.sum())
    return Counters(
        decoded=stored + 6, stored=stored, dropped=3, duplicate=2, resampled=1, gaps=gaps
    )


@pytest.fixture(params=["zarr", "h5"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create_format=request.param)


def verified(store: Store, **kwargs) -> dict[str, Verified]:
    return {found.name: found for found in verify_store(store, **kwargs)}


Damage = Callable[[bytes], bytes]


def flip_a_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def read_as_zeros(data: bytes) -> bytes:
    return bytes(len(data))


def read_as_ones(data: bytes) -> bytes:
    return b"\xff" * len(data)


def spoil_field(store: Store, field: str, chunk: int, damage: Damage = flip_a_bit) -> None:
    """Damage one stored chunk of a field, with the checksum next to it."""
    folder = Path(store.location) / "recordings" / "a"
    if store.format == "zarr":
        (path,) = (folder / field).glob(f"c.{chunk}*")
        path.write_bytes(damage(path.read_bytes()))
        return
    path = folder / f"frames-{chunk // 16:05d}.h5"  # 16 chunks a part
    with h5py.File(path) as file:
        dataset = file[field]
        assert isinstance(dataset, h5py.Dataset)
        stored = dataset.id.get_chunk_info(chunk % 16 if dataset.ndim > 1 else 0)
    data, start, stop = path.read_bytes(), stored.byte_offset, stored.byte_offset + stored.size
    path.write_bytes(data[:start] + damage(data[start:stop]) + data[stop:])


def edit_commit(store: Store, edit) -> None:
    path = Path(store.location) / "recordings" / "a" / "commit.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))


def test_an_intact_recording_is_read_whole_and_each_chunk_once(store, monkeypatch):
    reads: Counter[tuple[str, int]] = Counter()
    for kind in (ZarrFiles, H5Files):
        pixels = kind.pixels

        def counting(self, field, chunk, *args, pixels=pixels):
            reads[field, chunk] += 1
            return pixels(self, field, chunk, *args)

        monkeypatch.setattr(kind, "pixels", counting)
    frames = footage(100)
    write(store, frames)
    steps: list[VerifyProgress] = []
    (found,) = verify_store(store, progress=steps.append)
    assert found.ok
    assert found.complete
    assert (found.frames, found.damaged_chunks, found.faults) == (100, 0, ())
    assert found.read_bytes == 100 * (9 * 7 * 3 + 9 * 7 + 8 + 1 + 8)
    assert steps[-1].read_bytes == steps[-1].total_bytes == found.read_bytes
    assert len(reads) == 2 * 13  # chunks of 8 frames
    assert set(reads.values()) == {1}


def test_what_ingest_records_is_intact(media, clip, tmp_path):
    masked = media.video(tmp_path / "masked.mp4", 30)
    gap = np.arange(30) % 10 == 0
    media.masks(masked, np.zeros((30, 48, 64), np.uint8), np.arange(30) * 40_000_000, gap)
    damaged = media.video(tmp_path / "damaged.mp4", 120, gop=1, options={"bf": "0"})
    media.overwrite_packets(damaged, range(40, 44))
    sources = [str(path) for path in (clip, masked, damaged)]
    ingest_sources(sources, tmp_path / "store", RecordSettings(size=32, fps=12.5))
    found = verified(open_store(tmp_path / "store"))
    assert sorted(found) == ["clip", "damaged", "masked"]
    assert [one.faults for one in found.values()] == [(), (), ()]


@pytest.mark.parametrize("damage", [flip_a_bit, read_as_zeros, read_as_ones])
@pytest.mark.parametrize("field", ["frames", "masks", "pts_ns", "gap", "captured_ns"])
def test_a_damaged_chunk_of_any_field_is_found_and_named(store, field, damage):
    write(store, footage(100))
    spoil_field(store, field, 0, damage)
    (found,) = verify_store(store)
    assert found.damaged_chunks == 1
    (fault,) = found.faults
    assert "recording 'a'" in fault
    assert f"`{field}`" in fault
    assert "--overwrite" in fault


def test_checking_goes_on_after_damage_and_counts_it(store):
    write(store, footage(100))
    for field, chunk in [("frames", 3), ("frames", 9), ("masks", 9), ("frames", 12)]:
        spoil_field(store, field, chunk)
    (found,) = verify_store(store)
    assert not found.ok
    assert found.damaged_chunks == 4
    assert len(found.faults) == 1
    pixels_lost = (8 + 8 + 4) * 9 * 7 * 3 + 8 * 9 * 7  # the last chunk is short
    assert found.read_bytes == 100 * (9 * 7 * 4 + 17) - pixels_lost


def test_a_missing_file_is_damage(store):
    write(store, footage(100))
    name = "frames/c.5.0.0.0" if store.format == "zarr" else "frames-00000.h5"
    (Path(store.location) / "recordings/a" / name).unlink()
    (found,) = verify_store(store)
    assert found.damaged_chunks == (1 if store.format == "zarr" else 2 * 13 + 3)


@pytest.mark.parametrize(
    ("counter", "message"),
    [
        ("stored", "100 frames are committed, the counters say 101 stored"),
        ("decoded", "107 frames decoded, but stored .* make 106"),
        ("dropped", "106 frames decoded, but stored .* make 107"),
        ("gaps", r"\d+ gaps are stored, the counters say \d+"),
    ],
)
def test_a_counter_that_is_off_by_one_is_told(store, counter, message):
    write(store, footage(100))

    def count_one_more(record: dict) -> None:
        record["counters"][counter] += 1

    edit_commit(store, count_one_more)
    (found,) = verify_store(store)
    assert found.damaged_chunks == 0
    assert any(re.search(message, fault) for fault in found.faults)


@pytest.mark.parametrize(("end", "step"), [("first_pts_ns", -1), ("last_pts_ns", 1)])
def test_ends_that_differ_from_the_commit_record_are_told(store, end, step):
    write(store, footage(100))
    edit_commit(store, lambda record: record.update({end: record[end] + step}))
    (found,) = verify_store(store)
    (fault,) = found.faults
    assert "the commit record says from" in fault


def test_breaks_that_differ_from_the_stored_gaps_are_told(store):
    write(store, footage(100))
    edit_commit(store, lambda record: record["breaks"].pop(0))
    (found,) = verify_store(store)
    (fault,) = found.faults
    assert fault.startswith("gaps are stored at [0, ")
    assert "the commit record says [0" not in fault


def test_times_that_do_not_grow_are_told(store):
    frames = footage(100)
    frames.pts_ns[50] = frames.pts_ns[49]
    write(store, frames)
    (found,) = verify_store(store)
    assert found.faults == ("times do not grow after frame 49, and 1 times in all",)


def test_a_damaged_commit_record_is_told_and_the_others_are_checked(store):
    write(store, footage(20), name="a")
    write(store, footage(20), name="b")
    (Path(store.location) / "recordings/a/commit.json").write_text("{")
    found = verified(store)
    assert "damaged commit record" in found["a"].faults[0]
    assert "damaged chunk" not in verified_text(found["a"])
    assert found["b"].ok


def test_a_chunk_cut_short_is_told_with_its_length(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create_format="zarr")
    write(store, footage(20))
    spoil_field(store, "frames", 0, lambda data: data[:2])
    (fault,) = verified(store)["a"].faults
    assert "2 bytes, shorter than its 4-byte checksum" in fault


def test_a_recording_at_work_is_checked_as_far_as_it_is_committed(store):
    frames = footage(200)
    with begin(store) as writer:
        (found,) = verify_store(store)
        assert (found.ok, found.frames) == (True, 0)
        length = writer.block_length
        writer.append(frames.part(0, length), counters_of(frames.part(0, length)))
        being_written = Path(store.location) / "recordings/a/.c.9.1234.partial"
        being_written.write_bytes(b"half")
        (found,) = verify_store(store)
        assert (found.ok, found.complete, found.frames) == (True, False, length)
        assert found.leftovers == ()
    (found,) = verify_store(store)
    assert found.ok
    assert found.leftovers == (".c.9.1234.partial",)


def test_recordings_are_chosen_by_name(store):
    for name in ("a1", "a2", "b"):
        write(store, footage(20), name=name)
    assert sorted(verified(store, recordings="a*")) == ["a1", "a2"]
    with pytest.raises(StoreError, match=r"no recording matches 'c\*'; it holds: a1, a2, b"):
        verify_store(store, recordings="c*")
