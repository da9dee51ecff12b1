"""Plain files within a folder."""

import resource

import pytest

from ingest.disk.inside import open_inside, read_inside
from ingest.errors import StoreError


def test_where_too_many_files_are_open_no_file_is_called_damaged(tmp_path):
    (tmp_path / "a").write_bytes(b"sound")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"a cannot be opened .* \(ulimit -n\)"):
            held.extend(open_inside(tmp_path, "a") for _ in range(64))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in held:
            file.close()
    assert read_inside(tmp_path, "a", most_bytes=5) == b"sound"
