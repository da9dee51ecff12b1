"""What a store asks of the place where its bytes are, and that it asks for nothing else."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from killed import killed_in

from ingest.errors import NotAStoreError, RecordingLockedError, StoreError
from ingest.frame import Frames
from ingest.store.blobs import Blob, Blobs, LocalBlobs, Put, delete_leftovers, open_blobs
from ingest.store.directory import DirectoryStore
from ingest.store.formats.h5_files import H5Files
from ingest.store.formats.zarr_files import ZarrFiles
from ingest.store.layout import StoreLayout
from ingest.store.records import Counters, RecordSettings, Source
from ingest.verify import verify_store


class MemoryLease:
    def __init__(self, leased: set[str], name: str) -> None:
        self._leased, self._name = leased, name
        leased.add(name)

    def release(self) -> None:
        self._leased.discard(self._name)


class MemoryBlobs:
    """Blobs that are no files, such as those of an object store."""

    durable = True

    def __init__(
        self,
        root: str = "memory:",
        held: dict[str, bytes] | None = None,
        leased: set[str] | None = None,
    ) -> None:
        self.location = root
        self._held: dict[str, bytes] = {} if held is None else held
        self._leased: set[str] = set() if leased is None else leased
        self._lock = threading.Lock()

    def _key(self, name: str) -> str:
        return f"{self.location}/{name}" if name else self.location

    def within(self, folder: str) -> "MemoryBlobs":
        return MemoryBlobs(self._key(folder), self._held, self._leased)

    def found(self) -> str | None:
        return "other blobs" if any(self.entries()) else None

    def get(self, name: str, *, most_bytes: int = 1 << 30) -> bytes:
        try:
            return self._held[self._key(name)]
        except KeyError:
            raise FileNotFoundError(name) from None

    def put(self, name: str, data: bytes, *, durable: bool = False) -> None:
        with self._lock:
            self._held[self._key(name)] = data

    @contextmanager
    def put_together(self, folder: str) -> Iterator[Put]:
        written: dict[str, bytes] = {}
        yield written.__setitem__
        for name, data in written.items():
            self.put(name, data)

    def exists(self, name: str) -> bool:
        return self._key(name) in self._held

    def delete(self, name: str) -> bool:
        return self._held.pop(self._key(name), None) is not None

    def entries(self, folder: str = "") -> Iterator[Blob]:
        root, below = len(self.location) + 1, self._key(folder) + "/"
        for name, data in list(self._held.items()):
            if name.startswith(below):
                yield Blob(name[root:], len(data))

    def folders(self, folder: str) -> list[str]:
        names = (blob.name for blob in self.within(folder).entries())
        found = {name.partition("/")[0] for name in names if "/" in name}
        return sorted(name for name in found if not name.startswith("."))

    def make_folder(self, folder: str) -> None:
        pass

    def remove_folder(self, folder: str) -> None:
        for blob in list(self.entries(folder)):
            self.delete(blob.name)

    def lease(self, name: str, *, what: str) -> MemoryLease:
        if self.is_leased(name):
            raise RecordingLockedError(f"{what}: this process is writing it")
        return MemoryLease(self._leased, self._key(name))

    def is_leased(self, name: str) -> bool:
        return self._key(name) in self._leased

    def sync(self) -> None:
        pass


@pytest.fixture(params=["local", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return LocalBlobs(tmp_path / "root") if request.param == "local" else MemoryBlobs()


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


def test_blobs_put_together_come_all_at_once(blobs: Blobs) -> None:
    blobs.make_folder("a")
    with blobs.put_together("a") as put:
        put("a/x", b"x")
        put("a/y", b"y")
        assert not blobs.exists("a/x")
    assert names(blobs) == ["a/x", "a/y"]


def test_a_folder_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs.make_folder("a")
    blobs.put("a/x", b"x")
    blobs.remove_folder("a")
    with pytest.raises(FileNotFoundError):
        blobs.put("a/y", b"y")
    assert names(blobs) == []


@pytest.mark.parametrize("address", ["s3://bucket/store", "file:///store", "gs+x://b"])
def test_an_address_is_refused_as_a_location(address: str) -> None:
    with pytest.raises(NotAStoreError, match=f"^{re.escape(address)}: is an address, and stores"):
        open_blobs(address)


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


def test_a_lease_keeps_others_off_until_it_is_released(blobs: Blobs) -> None:
    blobs.make_folder("")
    lease = blobs.lease("lock", what="the recording")
    assert blobs.is_leased("lock")
    with pytest.raises(RecordingLockedError, match="the recording"):
        blobs.lease("lock", what="the recording")
    lease.release()
    lease.release()
    assert not blobs.is_leased("lock")
    blobs.lease("lock", what="the recording").release()


def footage(start: int, stop: int) -> Frames:
    index = np.arange(start, stop)
    pixels = np.arange(9 * 7 * 3).reshape(9, 7, 3)
    images = (index[:, None, None, None] * 7 + pixels) % 251
    return Frames(images.astype(np.uint8), index * 1000, index % 5 == 0)


def test_a_zarr_store_needs_no_more_than_blobs() -> None:
    blobs = MemoryBlobs("memory:store")
    store = DirectoryStore(StoreLayout.create(blobs, "zarr"), ZarrFiles)
    with pytest.raises(NotAStoreError, match="not a store but other blobs"):
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
        with pytest.raises(RecordingLockedError):
            begin()
        length = writer.block_length
        writer.append(footage(0, length), Counters(decoded=length, stored=length))
        with killed_in(StoreLayout, "write_commit"):
            writer.append(footage(length, 2 * length), Counters())
    store = DirectoryStore(StoreLayout.open(blobs), ZarrFiles)
    with begin() as writer, store.reader("a") as reader:
        end = length + 3
        writer.finish(footage(length, end), Counters(decoded=end, stored=end, gaps=14))
        assert reader.refresh().complete
        np.testing.assert_array_equal(reader.read(0, end).images, footage(0, end).images)
    (verified,) = verify_store(store)
    assert verified.ok, verified
    assert store.size_bytes("a") == sum(blob.size_bytes for blob in blobs.entries("recordings/a"))
    store.remove("a")
    assert store.recordings() == []


def test_h5_is_refused_where_there_are_no_files() -> None:
    store = DirectoryStore(StoreLayout.create(MemoryBlobs(), "h5"), H5Files)
    with pytest.raises(StoreError, match="needs a folder of this machine; use --format zarr"):
        store.writer("a", source=Source(path="/a"), settings=RecordSettings(), height=9, width=7)
    assert not store.is_being_written("a")
