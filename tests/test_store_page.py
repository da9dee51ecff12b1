"""docs/store.md is true: its examples run on the stores it makes, and give the values it names."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from commands import setcon
from snippets import commands, python_snippets, run_snippet

from ingest.store.records import CommitRecord, Counters, RecordSettings, Source

PAGE = Path(__file__).parents[1] / "docs" / "store.md"
NOT_INSTALLED = ("import xarray", "import tensorstore")  # tried by hand; the page names versions
SNIPPETS = [code for code in python_snippets(PAGE) if not code.startswith(NOT_INSTALLED)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores that the page makes."""
    folder = tmp_path_factory.mktemp("store-page")
    for command in commands(PAGE):
        done = setcon(*shlex.split(command)[1:], cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("code", SNIPPETS, ids=lambda code: code.splitlines()[0])
def test_an_example_gives_the_values_it_names(
    code: str, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stores)
    assert run_snippet(code) >= 1


def test_every_reader_that_is_installed_has_an_example() -> None:
    assert len(SNIPPETS) == 4


def test_the_page_explains_every_field_of_a_commit_record(stores: Path) -> None:
    text = PAGE.read_text()
    nested = {"source": Source, "settings": RecordSettings, "counters": Counters}
    written = json.loads((stores / "store/recordings/balls/commit.json").read_text())
    assert set(written) == {field.name for field in fields(CommitRecord)}
    for name in written:
        if name not in nested:
            assert f"`{name}`" in text, name
    for name, kind in nested.items():
        first, *rest = (field.name for field in fields(kind))
        assert f"`{name}.{first}`" in text
        for field in rest:
            assert f"`{name}.{field}`" in text or f"`{field}`" in text, field


@pytest.mark.parametrize("name", ["store", "store-h5"])
def test_the_files_of_a_store_are_those_that_the_page_draws(stores: Path, name: str) -> None:
    layout = PAGE.read_text().split("## Layout")[1].split("## ")[0]
    for path in (stores / name).rglob("*"):
        drawn = re.sub(r"^c\.\d+", "c.0", path.name).replace("balls", "NAME")
        assert drawn in layout, path
