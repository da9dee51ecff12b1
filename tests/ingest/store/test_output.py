import errno
import os
from pathlib import Path

import pytest

from ingest.errors import StorageFullError
from ingest.open import open_store
from ingest.store.output import folder_fault, output_fault, writing

NAME = "name a file, new or old"


def fault(path: Path, *beside: Path, overwrite: bool = True) -> str | None:
    return output_fault(path, *beside, what="a film", endings=(".a", ".b"), overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_a_new_or_an_ordinary_file_may_be_written(tmp_path: Path, overwrite: bool) -> None:
    old, folder = tmp_path / "old.a", tmp_path / "folder.b"
    old.write_bytes(b"frames")
    folder.mkdir()
    assert fault(tmp_path / "new.a", overwrite=overwrite) is None
    assert fault(folder, overwrite=overwrite) == f"{folder}: is a directory; {NAME}"
    assert fault(tmp_path / "new.a", folder, overwrite=overwrite) == (
        f"{folder}: is a directory; {NAME}"
    )
    os.mkfifo(tmp_path / "pipe.a")
    assert fault(tmp_path / "pipe.a", overwrite=overwrite) == (
        f"{tmp_path / 'pipe.a'}: is not an ordinary file; {NAME}"
    )
    lost = fault(tmp_path / "none" / "x.a", overwrite=overwrite)
    assert lost == f"{tmp_path / 'none'}: no such folder; make it, or name a file in another"
    inside = fault(old / "x.a", overwrite=overwrite)
    assert inside == f"{old}: is a file, not a folder; name another"
    in_the_way = f"{old}: exists; name another file, or use --overwrite"
    assert fault(old, overwrite=overwrite) == (None if overwrite else in_the_way)


@pytest.mark.parametrize(
    ("path", "found"),
    [("config.toml", ".toml"), ("x", "no ending"), (".", "no ending"), ("/", "no ending")],
)
def test_what_is_of_another_kind_is_never_replaced(path: str, found: str) -> None:
    told = fault(Path(path))
    assert told == f"{Path(path)}: a film is written as .a or .b, not {found}; end it in .a or .b"


def test_nothing_is_written_into_a_store(tmp_path: Path) -> None:
    store = tmp_path / "store"
    open_store(store, create_format="h5")
    (tmp_path / "link").symlink_to(store / "recordings")
    (store / "out.a").symlink_to(tmp_path / "x.a")
    for path in (
        *(store / "x.a", store / "recordings" / "x.a", tmp_path / "link" / "x.a"),
        store / "out.a",
    ):
        assert fault(path) == f"{path}: is in the store {store}; name a file outside of it"
    assert fault(tmp_path / "x.A") is None
    for folder in (store, store / "new" / "deep", tmp_path / "link"):
        told = folder_fault(folder)
        assert told == f"{folder}: is in the store {store}; name a directory outside of it"
    assert folder_fault(tmp_path / "new" / "deep") is None
    (tmp_path / "file").touch()
    assert folder_fault(tmp_path / "file" / "x") == (
        f"{tmp_path / 'file'}: is a file; name a directory"
    )


def test_a_file_that_is_called_like_the_mark_of_a_store_makes_none(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"cart": 1}')
    assert fault(tmp_path / "x.a") is None


def test_a_link_to_itself_is_replaced_like_any_file(tmp_path: Path) -> None:
    (tmp_path / "x.a").symlink_to(tmp_path / "x.a")
    assert fault(tmp_path / "x.a") is None


def test_a_refusal_to_write_says_that_nothing_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "film.a"
    with pytest.raises(StorageFullError) as caught, writing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / ".film.a.partial"))
    assert str(caught.value) == (
        f"{path}: the disk is exhausted (No space left on device); the earlier file is "
        "unchanged: free some space and run the same command again"
    )
