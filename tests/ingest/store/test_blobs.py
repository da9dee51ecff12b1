"""What a store asks of the place where its bytes are, and that it asks for nothing else."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from killed import killed_in
from obstore.store import MemoryStore

from ingest.errors import NotAStoreError, RecordingLockedError
from ingest.frame import Frames
from ingest.store.blobs import Blob, Blobs, Lease, LocalBlobs, delete_leftovers, open_blobs
from ingest.store.blocks import Blocks
from ingest.store.directory import DirectoryStore
from ingest.store.formats.zarr_files import ZarrFiles
from ingest.store.layout import StoreLayout
from ingest.store.objects import ObjectBlobs
from ingest.store.records import Counters, RecordSettings, Source
from ingest.verify import verify_store

SHARDED = partial(ZarrFiles, are_sharded=True)


def object_blobs() -> ObjectBlobs:
    """Objects in memory; nothing of them is kept in files."""
    return ObjectBlobs(MemoryStore(), "s3://bucket/store", Blocks(Path("nowhere"), 0))


@pytest.fixture(params=["local", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return LocalBlobs(tmp_path / "root") if request.param == "local" else object_blobs()


def names(blobs: Blobs, folder: str = "") -> list[str]:
    return sorted(blob.name for blob in blobs.entries(folder))


def test_a_blob_is_put_replaced_listed_and_deleted(blobs: Blobs) -> None:
    assert isinstance(blobs, Blobs)
    assert blobs.found() is None
    with pytest.raises(FileNotFoundError):
        blobs.get("a/b/c")
    blobs.make_folder("a/b")
    blobs.put("a/b/c", b"one")
    blobs.put("a/b/c", b"three")
    assert blobs.found() is not None
    assert blobs.get("a/b/c") == b"three"
    assert blobs.within("a").get("b/c") == b"three"
    assert list(blobs.entries()) == [Blob("a/b/c", 5)]
    assert list(blobs.within("a").entries("b")) == [Blob("b/c", 5)]
    assert blobs.exists("a/b/c")
    assert (blobs.delete("a/b/c"), blobs.delete("a/b/c")) == (True, False)
    assert not blobs.exists("a/b/c")


def test_blobs_put_together_are_there_in_the_end(blobs: Blobs) -> None:
    blobs.make_folder("a")
    with blobs.put_together("a") as put:
        put("a/x", b"x")
        put("a/y", b"y")
    assert names(blobs) == ["a/x", "a/y"]


def test_a_folder_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs.make_folder("a")
    blobs.put("a/x", b"x")
    blobs.remove_folder("a")
    with pytest.raises(FileNotFoundError):
        blobs.put("a/y", b"y")
    assert names(blobs) == []


@pytest.mark.parametrize("address", ["ftp://host/store", "file:///store", "gs+x://b"])
def test_an_address_of_anything_else_is_refused_as_a_location(address: str) -> None:
    with pytest.raises(NotAStoreError, match=f"^{re.escape(address)}: stores are kept in folders"):
        open_blobs(address)


@pytest.mark.parametrize("address", ["s3://", "s3:///store", "gs://", "az:///"])
def test_an_address_without_a_bucket_is_refused_in_a_line(address: str) -> None:
    with pytest.raises(NotAStoreError, match=rf"^{address}: cannot be used \([^\n]*$"):
        open_blobs(address)


def test_an_address_of_azure_says_where_the_account_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    remedy = "such as az://container/store, and the account in AZURE_STORAGE_ACCOUNT_NAME$"
    with pytest.raises(NotAStoreError, match=remedy):
        open_blobs("az://container/store")


@pytest.mark.parametrize("name", ["store", "./a:b", "a:/b", "1://x"])
def test_any_other_text_is_a_local_folder(name: str) -> None:
    assert open_blobs(name).location == str(Path(name))
    assert open_blobs(Path(name)).location == str(Path(name))


def test_folders_are_listed_without_hidden_ones_and_removed_whole(blobs: Blobs) -> None:
    for name in ("r/b/x", "r/a/y", "r/a/deep/z", "r/.hidden/x", "r/file"):
        blobs.make_folder(name.rpartition("/")[0])
        blobs.put(name, b"")
    assert blobs.folders("r") == ["a", "b"]
    assert blobs.folders("nowhere") == []
    blobs.remove_folder("r/a")
    blobs.remove_folder("r/nowhere")
    assert blobs.folders("r") == ["b"]
    assert names(blobs) == ["r/.hidden/x", "r/b/x", "r/file"]


def test_leftovers_are_listed_as_such_and_deleted(blobs: Blobs) -> None:
    blobs.make_folder("a")
    for name in ("a/x", "a/.x.1.partial"):
        blobs.put(name, b"half")
    assert {blob.name for blob in blobs.entries() if blob.is_leftover} == {"a/.x.1.partial"}
    delete_leftovers(blobs)
    assert names(blobs) == ["a/x"]


def test_a_lock_keeps_others_off_until_it_is_released(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    lease = blobs.lease("a", "a/record", what="the recording")
    assert isinstance(lease, Lease)
    assert blobs.is_leased("a", "a/record")
    with pytest.raises(RecordingLockedError, match="the recording"):
        blobs.lease("a", "a/record", what="the recording")
    lease.release()
    lease.release()
    assert not blobs.is_leased("a", "a/record")
    blobs.lease("a", "a/record", what="the recording").release()


def footage(start: int, stop: int) -> Frames:
    index = np.arange(start, stop)
    pixels = np.arange(9 * 7 * 3).reshape(9, 7, 3)
    images = (index[:, None, None, None] * 7 + pixels) % 251
    return Frames(images.astype(np.uint8), index * 1000, index % 5 == 0)


def test_a_zarr_store_needs_no_more_than_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.store.reader.FRESH_SECONDS", 0.0)
    blobs = object_blobs()
    store = DirectoryStore(StoreLayout.create(blobs, "zarr"), SHARDED)
    with pytest.raises(NotAStoreError, match="not a store but a place with other objects in it"):
        StoreLayout.create(blobs, "zarr")

    def begin():
        return store.writer(
            "a",
            source=Source(path="/a.mp4", digest="a"),
            settings=RecordSettings(size=None),
            height=9,
            width=7,
            max_chunk_length=8,
        )

    with begin() as writer:
        assert store.is_being_written("a")
        length = writer.block_length
        writer.append(footage(0, length), Counters(decoded=length, stored=length))
        with killed_in(StoreLayout, "write_commit"):
            writer.append(footage(length, 2 * length), Counters())
    store = DirectoryStore(StoreLayout.open(blobs), SHARDED)
    with begin() as writer, store.reader("a") as reader:
        end = length + 3
        gaps = int(footage(0, end).gap.sum())
        writer.finish(footage(length, end), Counters(decoded=end, stored=end, gaps=gaps))
        assert reader.refresh().complete
        np.testing.assert_array_equal(reader.read(0, end).images, footage(0, end).images)
    (verified,) = verify_store(store)
    assert verified.ok, verified
    assert store.size_bytes("a") == sum(blob.size_bytes for blob in blobs.entries("recordings/a"))
    store.remove("a")
    assert store.recordings() == []


def test_h5_is_refused_where_there_are_no_files() -> None:
    blobs = object_blobs()
    with pytest.raises(NotAStoreError, match="object storage holds stores of zarr, not h5; use"):
        StoreLayout.create(blobs, "h5")
    assert names(blobs) == []
