"""What frames are compressed with: every codec in both formats, and frames that are mapped."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import zarr

from ingest.errors import DamagedChunkError, RecordingExistsError
from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.cache import ChunkCache
from ingest.store.protocols import RecordingWriter, Store
from ingest.store.records import Codec, Counters, RecordSettings, Source, StoreFormat
from ingest.verify import verify_store

CODECS = get_args(Codec)
SIDE, COUNT = 64, 200


def footage(count: int) -> Frames:
    """A bright square that wanders over noise, which every codec makes a little smaller."""
    random = np.random.default_rng(0)
    images = random.integers(0, 8, (count, SIDE, SIDE, 3), np.uint8)
    for index, image in enumerate(images):
        image[index % 40 : index % 40 + 20, 10:30] = 200
    return Frames(
        images=images,
        pts_ns=np.arange(count, dtype=np.int64) * 33_333_333,
        gap=np.arange(count) == 0,
        masks=(images[..., 0] == 200).astype(np.uint8),
    )


FOOTAGE = footage(600)


def begin(store: Store, codec: Codec, **kwargs: bool) -> RecordingWriter:
    return store.writer(
        "a",
        source=Source(path="/a.mp4", size_bytes=10, digest="ab" * 32),
        settings=RecordSettings(size=SIDE),
        height=SIDE,
        width=SIDE,
        has_masks=True,
        codec=codec,
        **kwargs,
    )


def append(writer: RecordingWriter, start: int = 0) -> int:
    stop = start + writer.block_length
    writer.append(FOOTAGE.part(start, stop), Counters(decoded=stop, stored=stop, gaps=1))
    return stop


def written(path: Path, store_format: StoreFormat, codec: Codec) -> Store:
    store = open_store(path, create_format=store_format, durable=False)
    with begin(store, codec) as writer:
        counters = Counters(decoded=COUNT, stored=COUNT, gaps=1)
        writer.finish(FOOTAGE.part(0, COUNT), counters)
    return store


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return written(tmp_path_factory.mktemp("raw") / "store", "zarr", "none")


@pytest.mark.parametrize("store_format", get_args(StoreFormat))
@pytest.mark.parametrize("codec", CODECS)
def test_frames_of_every_codec_read_back(tmp_path, store_format, codec):
    store = written(tmp_path / "store", store_format, codec)
    assert FOOTAGE.masks is not None
    with store.reader("a") as reader:
        assert reader.commit.codec == codec
        for start, stop in ((0, COUNT), (0, 34), (60, 94), (90, 90), (31, 163), (190, COUNT)):
            found = reader.read(start, stop, masks=True)
            np.testing.assert_array_equal(found.images, FOOTAGE.images[start:stop])
            np.testing.assert_array_equal(found.masks, FOOTAGE.masks[start:stop])
    assert [verified.faults for verified in verify_store(store)] == [()]
    if store_format == "zarr":
        plain = zarr.open_array(tmp_path / "store" / "recordings" / "a" / "frames", mode="r")
        np.testing.assert_array_equal(plain[:], FOOTAGE.images[:COUNT])


def test_a_stronger_codec_takes_less_room(tmp_path, raw):
    sizes = [written(tmp_path / c, "zarr", c).size_bytes("a") for c in ("zstd", "lz4")]
    assert sizes[0] < sizes[1] < raw.size_bytes("a")


def test_frames_that_are_not_compressed_are_not_copied(raw):
    with raw.reader("a") as reader:
        one, other = reader.read(3, 37), reader.read(20, 54)
        assert np.shares_memory(one.images, other.images)
        with pytest.raises(ValueError, match="read-only"):
            one.images[0] = 0
        np.testing.assert_array_equal(one.images[17:], other.images[:17])
    # a clip outlives what it was read by, and its recording
    np.testing.assert_array_equal(one.images, FOOTAGE.images[3:37])


def test_a_clip_of_several_chunks_is_whole(raw):
    with raw.reader("a", cache=ChunkCache(0)) as reader:
        length = reader.commit.chunk_length
        assert length == 64
        found = reader.read(length - 20, length + 14).images
    np.testing.assert_array_equal(found, FOOTAGE.images[length - 20 : length + 14])


@pytest.mark.parametrize("damage", ["flipped", "cut", "moved", "missing"])
def test_damage_of_a_mapped_chunk_is_found(tmp_path, damage):
    store = written(tmp_path / "store", "zarr", "none")
    path = tmp_path / "store" / "recordings" / "a" / "frames" / "c.1.0.0.0"
    data = bytearray(path.read_bytes())
    data[100_000] ^= 1
    whole = {"flipped": data, "cut": data[:300_000], "missing": None}
    whole["moved"] = (path.parent / "c.0.0.0.0").read_bytes()
    path.unlink()
    if whole[damage] is not None:
        path.write_bytes(whole[damage])
    with store.reader("a") as reader:
        with pytest.raises(DamagedChunkError, match="chunk 1 of `frames` is damaged"):
            reader.read(64, 98)
        np.testing.assert_array_equal(reader.read(0, 34).images, FOOTAGE.images[:34])
    assert not next(verify_store(store)).ok


def test_a_recording_goes_on_with_its_codec_only(tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr", durable=False)
    with begin(store, "lz4") as writer:
        done = append(writer)
    with pytest.raises(RecordingExistsError, match=r"codec=lz4 \(asked: none\).*--overwrite"):
        begin(store, "none")
    with begin(store, "lz4") as writer:
        assert writer.commit.length == done
    with begin(store, "none", overwrite=True) as writer:
        assert (writer.commit.length, writer.commit.codec) == (0, "none")


def test_a_reader_sees_what_is_added_to_a_growing_recording(tmp_path):
    store = open_store(tmp_path / "store", create_format="zarr", durable=False)
    with begin(store, "none") as writer, store.reader("a") as reader:
        done = append(writer)
        for end in (done, len(FOOTAGE)):
            if end > done:
                counters = Counters(decoded=end, stored=end, gaps=1)
                writer.finish(FOOTAGE.part(done, end), counters)
            assert reader.refresh().length == end
            np.testing.assert_array_equal(reader.read(0, end).images, FOOTAGE.images[:end])
            assert reader.refresh() is reader.commit
