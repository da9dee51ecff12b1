"""Commit records list where a recording does not continue, which saves reading its index."""

import numpy as np
import pytest

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.protocols import RecordingWriter, Store
from ingest.store.records import MAX_BREAKS, CommitRecord, Counters, RecordSettings, Source


def begin(store: Store) -> RecordingWriter:
    return store.writer(
        "a",
        source=Source(path="/a.mp4", digest="ab"),
        settings=RecordSettings(size=8),
        height=8,
        width=8,
        max_chunk_length=16,
    )


def frames(start: int, stop: int, gaps: set[int]) -> Frames:
    index = np.arange(start, stop)
    return Frames(
        images=np.zeros((stop - start, 8, 8, 3), np.uint8),
        pts_ns=index * 1_000,
        gap=np.isin(index, [*gaps]),
    )


@pytest.mark.parametrize("count", [1, 3, MAX_BREAKS, MAX_BREAKS + 1])
def test_breaks_are_listed_over_all_writers_unless_they_are_too_many(tmp_path, count):
    store = open_store(tmp_path / "store", create_format="zarr", durable=False)
    gaps = {0, *range(300 - count + 1, 300)}
    for _ in range(2):  # the second continues where the first was killed
        with begin(store) as writer:
            block, start = writer.block_length, writer.commit.length
            writer.append(frames(start, start + block, gaps), Counters())
    with begin(store) as writer:
        start = writer.commit.length
        while start + block < 300:
            start = writer.append(frames(start, start + block, gaps), Counters()).length
        found = writer.finish(frames(start, 300, gaps), Counters())
    assert store.commit("a") == found
    assert found.breaks == (tuple(sorted(gaps)) if count <= MAX_BREAKS else None)


@pytest.mark.parametrize("breaks", [(0, 0), (3, 2), (-1,), (10,)])
def test_breaks_that_cannot_be_are_refused(breaks):
    with pytest.raises(ValueError, match="breaks must be some of 10 frames"):
        CommitRecord(
            length=10,
            first_pts_ns=0,
            last_pts_ns=9,
            height=8,
            width=8,
            chunk_length=16,
            source=Source(path=""),
            settings=RecordSettings(size=8),
            breaks=breaks,
        )
