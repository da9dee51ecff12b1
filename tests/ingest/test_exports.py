"""What `import ingest` gives, and what it costs."""

import subprocess
import sys

import pytest

import ingest

HEAVY = {"av", "decord", "h5py", "numcodecs", "numpy", "torch", "zarr"}


def test_public_names_are_sorted_and_each_is_there():
    assert ingest.__all__ == sorted(set(ingest.__all__))
    for name in ingest.__all__:
        assert getattr(ingest, name).__name__ == name


def test_a_name_that_is_not_public_is_told():
    with pytest.raises(AttributeError, match="module 'ingest' has no attribute 'open_stores'"):
        ingest.open_stores  # noqa: B018 # pyright: ignore[reportAttributeAccessIssue]


def test_importing_it_brings_nothing_heavy():
    program = "import sys, ingest; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert not HEAVY & set(done.stdout.split())


def test_errors_are_named_without_opening_anything():
    program = "import sys, ingest; ingest.StoreError; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert not HEAVY & set(done.stdout.split())
