"""Stores that anyone may have changed: what is read is what was stored, or a line says why not.

Nothing is read from outside of the store, and reading, listing or continuing loses nothing in it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import assert_one_line, changed, contents, few_unless_asked, garbled, limited_memory
from hypothesis import example, given
from hypothesis import strategies as st
from made_stores import make_store, noise, writer_of

from ingest.errors import IngestError
from ingest.open import open_store
from ingest.store.protocols import Store
from ingest.store.records import StoreFormat
from ingest.verify import verify_store
from online.clips.catalog import StoreCatalog

pytestmark = [pytest.mark.fuzz, pytest.mark.usefixtures("unchecked_shapes")]

LENGTH = 40
SECRET = b"a secret of this user, of which no byte may leave this machine\n" * 40
FORMATS: tuple[StoreFormat, ...] = ("zarr", "h5")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of each format, with masks and times of capture."""
    folder = tmp_path_factory.mktemp("made")
    for store_format in FORMATS:
        make_store(folder / store_format, store_format, length=LENGTH, masks=True, live=True)
    return {store_format: folder / store_format for store_format in FORMATS}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Path]]:
    """A fresh copy of a store next to a secret, in the place of the previous one."""
    folder = tmp_path_factory.mktemp("copies")

    def copy(store: Path) -> Path:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "secret").write_bytes(SECRET)
        return shutil.copytree(store, folder / "store")

    return copy


def assert_no_secret(data: bytes) -> None:
    assert SECRET[:16] not in data


def said(ask: Callable[[], Any]) -> Any:
    """What `ask` gives; None for an error, which must be a line."""
    try:
        with limited_memory():
            return ask()
    except IngestError as error:
        assert_one_line(error)
        assert_no_secret(str(error).encode())
        return None


def verified(store: Store) -> bool:
    every = list(verify_store(store))
    for fault in (line for one in every for line in one.faults):
        assert_one_line(fault)
    return all(one.ok for one in every)


def continued(store: Store) -> None:
    """What the next capture or ingest of the same source does first."""
    with writer_of(store, masks=True, live=True):
        pass


def check(folder: Path) -> None:
    """Whatever was changed: exact frames or a line from each door, and files as they were."""
    before = contents(folder)
    expected = noise(LENGTH, masks=True, live=True)

    def read() -> None:
        with store.reader("a") as reader:
            frames = reader.read(0, min(LENGTH, reader.commit.length), masks=True)
        count = len(frames)
        assert_no_secret(frames.images.tobytes() + frames.pts_ns.tobytes())
        if frames.images.shape[1:] == expected.images.shape[1:]:
            np.testing.assert_array_equal(frames.images, expected.images[:count])
        np.testing.assert_array_equal(frames.pts_ns, expected.pts_ns[:count])
        np.testing.assert_array_equal(frames.gap, expected.gap[:count])

    def summed_up() -> None:
        catalog = StoreCatalog(store)
        catalog.recordings()
        for why in catalog.left_out.values():
            assert_one_line(why)
        catalog.close()

    store = said(lambda: open_store(folder))
    if store is None:
        return
    for ask in (store.recordings, lambda: store.commit("a"), read, lambda: verified(store)):
        said(ask)
    said(summed_up)
    said(lambda: store.leftovers("a"))
    assert contents(folder) == before
    said(lambda: continued(store))
    assert said(lambda: store.commit("a")) is None or (folder / "recordings/a/commit.json").exists()
    assert (folder.parent / "secret").read_bytes() == SECRET
    if "recordings/a/commit.json" not in before:
        return  # there was no recording, and the writer has begun one
    kept = {name: data for name, data in contents(folder).items() if name in before}
    assert kept == {name: data for name, data in before.items() if name in kept}


@pytest.mark.parametrize("store_format", FORMATS)
def test_the_stores_are_whole_before_they_are_changed(made, store_format):
    assert verified(open_store(made[store_format]))


RECORD = {
    "version": 1,
    "length": LENGTH,
    "released": 0,
    "complete": True,
    "durable": True,
    "live": True,
    "height": 8,
    "width": 8,
    "has_masks": True,
    "chunk_length": 64,
    "source": {"path": "made", "part": "", "size_bytes": 0, "digest": "made"},
    "settings": {"size": 8, "fit": "crop", "fps": None, "reader": "auto"},
    "first_pts_ns": 0,
    "last_pts_ns": LENGTH - 1,
    "counters": {"decoded": LENGTH, "stored": LENGTH, "gaps": 1},
}


@few_unless_asked(12)
@given(
    st.one_of(
        changed(RECORD).map(lambda tree: json.dumps(tree).encode()),
        changed(RECORD).map(lambda tree: json.dumps(tree).encode()),
        garbled(json.dumps(RECORD).encode()),
    ),
    st.sampled_from(FORMATS),
)
@example(b"[" * 100_000, "zarr")
@example(
    json.dumps({k: v for k, v in RECORD.items() if k != "complete"} | {"length": 2}).encode(),
    "zarr",
)
@example(json.dumps(RECORD | {"length": 0, "complete": False}).encode(), "h5")
def test_any_commit_record(made, copies, record: bytes, store_format: str) -> None:
    folder = copies(made[store_format])
    (folder / "recordings/a/commit.json").write_bytes(record)
    check(folder)


def small_files(folder: Path) -> list[Path]:
    """Plain ones, not those that an earlier change has made huge."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in files if path.stat().st_size < 1 << 20)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


ODD_FILES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "a link to the secret": lambda path: path.symlink_to(path.parents[3] / "secret"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a huge file": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
    "another of its files": lambda path: shutil.copy(small_files(path.parent)[0], path),
}


def table_in(data: bytes) -> Any:
    """The JSON of a file; None where it is something else."""
    try:
        return json.loads(data)
    except ValueError:
        return None


@few_unless_asked(12)
@given(data=st.data(), store_format=st.sampled_from(FORMATS))
def test_any_file_of_a_store(made, copies, data: st.DataObject, store_format: str) -> None:
    folder = copies(made[store_format])
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(small_files(folder)))
        whole = path.read_bytes()
        match data.draw(st.integers(0, 4)):
            case 0 if len(small_files(path.parent)) > 1 and path.parent != folder:
                replaced(path, ODD_FILES[data.draw(st.sampled_from(sorted(ODD_FILES)))])
            case 1 | 2 if (tree := table_in(whole)) is not None:
                path.write_text(json.dumps(data.draw(changed(tree))))
            case _:
                path.write_bytes(data.draw(garbled(whole)))
    check(folder)
