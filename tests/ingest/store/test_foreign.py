"""Stores that somebody else made: nothing outside of them is read, and reading them ends."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_stores import make_store

from ingest.disk.hdf5 import dataset
from ingest.errors import IngestError, StoreError
from ingest.open import open_store
from ingest.store.protocols import Store
from ingest.verify import verify_store

LENGTH = 40
SECRET = b"a secret of this user, of which no byte may leave this machine\n" * 40


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return path


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def refused(store: Store) -> list[str]:
    """What verifying and reading the recording say, which must be a line each."""
    said = []
    for verified in verify_store(store):
        assert not verified.ok
        said += verified.faults
    with pytest.raises(IngestError) as raised, store.reader("a") as reader:
        reader.read(0, LENGTH)
    said.append(str(raised.value))
    assert not any("\n" in line or "secret of this user" in line for line in said)
    return said


ODD_FILES = {
    "a link to a file": lambda path: path.symlink_to(path.parents[3] / "secret"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a huge file": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
}


@pytest.mark.parametrize("odd", ODD_FILES)
@pytest.mark.parametrize("name", ["commit.json", "pts_ns/c.0", "frames/c.0.0.0.0", "gap/zarr.json"])
def test_a_zarr_store_is_read_from_plain_files_of_a_size_that_can_be(tmp_path, secret, name, odd):
    make_store(tmp_path / "store")
    folder = tmp_path / "store" / "recordings" / "a"
    replaced(folder / name, ODD_FILES[odd])
    assert refused(open_store(tmp_path / "store"))


@pytest.mark.parametrize("odd", list(ODD_FILES)[:4])
@pytest.mark.parametrize("name", ["commit.json", "frames-00000.h5"])
def test_an_h5_store_is_read_from_plain_files(tmp_path, secret, name, odd):
    make_store(tmp_path / "store", "h5")
    folder = tmp_path / "store" / "recordings" / "a"
    replaced(folder / name, ODD_FILES[odd])
    assert refused(open_store(tmp_path / "store"))


@pytest.mark.parametrize("place", ["recordings", "recordings/a", "recordings/a/frames"])
def test_a_folder_that_is_a_link_is_not_followed(tmp_path, place):
    make_store(tmp_path / "store")
    (tmp_path / "store" / place).rename(tmp_path / "elsewhere")
    (tmp_path / "store" / place).symlink_to(tmp_path / "elsewhere")
    said = refused(open_store(tmp_path / "store"))
    assert any("is a symbolic link, which is not followed" in line for line in said)


def test_a_store_may_itself_be_reached_by_a_link(tmp_path):
    make_store(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    (verified,) = verify_store(open_store(tmp_path / "link"))
    assert verified.ok


@pytest.mark.parametrize("odd", ["a link to a file", "a link to a device", "a pipe"])
def test_a_lock_that_is_none_is_neither_waited_for_nor_written(tmp_path, secret, odd):
    make_store(tmp_path / "store")
    ODD_FILES[odd](tmp_path / "store" / "recordings" / ".a.lock")
    store = open_store(tmp_path / "store")
    assert not store.is_being_written("a")
    with pytest.raises(StoreError, match="cannot write"):
        store.remove("a")
    assert secret.read_bytes() == SECRET


def without(file: h5py.File, field: str) -> np.ndarray:
    """The values of a field, which is deleted, with its checksum."""
    values = dataset(file, field)[:]
    del file[field]
    return values


def external_storage(file: h5py.File, field: str, secret: Path) -> None:
    values = without(file, field)
    place = [(str(secret), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(field, shape=values.shape, dtype=values.dtype, external=place)


def external_link(file: h5py.File, field: str, secret: Path) -> None:
    values = without(file, field)
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other[field] = values
    file[field] = h5py.ExternalLink(str(secret.with_name("other.h5")), field)


def soft_link(file: h5py.File, field: str, secret: Path) -> None:
    file["other"] = without(file, field)
    file[field] = h5py.SoftLink("/other")


def virtual(file: h5py.File, field: str, secret: Path) -> None:
    values = without(file, field)
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other[field] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(str(secret.with_name("other.h5")), field, values.shape)
    file.create_virtual_dataset(field, layout)


def endless(file: h5py.File, field: str, secret: Path) -> None:
    values = without(file, field)
    shape = (1 << 33, *values.shape[1:])
    file.create_dataset(field, shape=shape, dtype=values.dtype, chunks=(64, *values.shape[1:]))


@pytest.mark.parametrize("field", ["pts_ns", "gap", "frames"])
@pytest.mark.parametrize("hostile", [external_storage, external_link, soft_link, virtual, endless])
def test_values_of_an_h5_store_lie_in_its_own_files(tmp_path, secret, field, hostile):
    make_store(tmp_path / "store", "h5")
    folder = tmp_path / "store" / "recordings" / "a"
    with h5py.File(folder / "frames-00000.h5", "a") as file:
        hostile(file, field, secret)
    said = refused(open_store(tmp_path / "store"))
    assert any(f"reading `{field}`" in line for line in said)


@pytest.mark.parametrize("field", ["pts_ns", "gap"])
def test_fields_without_a_checksum_as_earlier_versions_wrote_them_are_read(tmp_path, field):
    make_store(tmp_path / "store", "h5")
    folder = tmp_path / "store" / "recordings" / "a"
    with h5py.File(folder / "frames-00000.h5", "a") as file:
        file[field] = without(file, field)
    (verified,) = verify_store(open_store(tmp_path / "store"))
    assert verified.ok


def test_a_commit_record_promises_no_chunk_that_memory_cannot_hold(tmp_path):
    make_store(tmp_path / "store")
    folder = tmp_path / "store" / "recordings" / "a"
    record = json.loads((folder / "commit.json").read_text())
    record |= {"height": 15_000, "width": 15_000, "chunk_length": 1024}
    (folder / "commit.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match=r"damaged commit record \(.*chunk_length must lie in"):
        open_store(tmp_path / "store").commit("a")
    (folder / "commit.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match="damaged commit record"):
        open_store(tmp_path / "store").commit("a")
