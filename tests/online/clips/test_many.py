"""Stores of many recordings: what is read for each of them, counted."""

from collections import Counter
from pathlib import Path

import pytest

from ingest.store.blobs import LocalBlobs
from ingest.store.formats.zarr_array import ZarrArray
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor
from online.clips.plan import extents_now, make_plan
from online.clips.request import ClipRequest

WANT = ClipRequest(clip=ClipConfig(clip_length=4))
COUNT = 300


@pytest.fixture
def done(monkeypatch) -> Counter:
    """How often a blob was read, looked for, and listed, and an array opened."""
    counts: Counter = Counter()
    for kind, method in ((LocalBlobs, "get"), (LocalBlobs, "exists"), (LocalBlobs, "folders")):
        plain = getattr(kind, method)

        def counted(self, *args, plain=plain, method=method, **named):
            counts[method] += 1
            return plain(self, *args, **named)

        monkeypatch.setattr(kind, method, counted)
    opened = ZarrArray.open

    def counted_open(*args):
        counts["open"] += 1
        return opened(*args)

    monkeypatch.setattr(ZarrArray, "open", counted_open)
    return counts


def fill(store, record) -> None:
    """Recordings that are complete, of which only the commit records are there."""
    record("r000", 30)
    recordings = Path(store.location) / "recordings"
    written = (recordings / "r000" / "commit.json").read_bytes()
    for number in range(1, COUNT):
        (recordings / f"r{number:03}").mkdir()
        (recordings / f"r{number:03}" / "commit.json").write_bytes(written)


def test_planning_reads_the_commit_record_of_each_recording_and_nothing_else(store, record, done):
    fill(store, record)
    done.clear()
    with_names = StoreCatalog(store)
    cursor = Cursor(extents=extents_now(with_names, "*", follow=False))
    plan = make_plan(with_names, WANT, order="shuffled", cursor=cursor)
    assert plan.total == 6 * COUNT
    assert done["open"] == 0
    assert done["get"] == COUNT
    assert done["folders"] == 2
    assert done["exists"] == 2 * COUNT
    done.clear()
    assert len(with_names.recordings()) == COUNT
    assert (done["open"], done["get"], done["folders"]) == (0, COUNT, 1)


def test_looking_for_what_is_new_reads_only_what_may_have_grown(store, record, done):
    fill(store, record)
    record("growing", 64, complete=False)
    catalog = StoreCatalog(store)
    extents = extents_now(catalog, "*", follow=True)
    done.clear()
    assert extents_now(catalog, "*", follow=True) == extents
    assert (done["open"], done["get"], done["folders"]) == (0, 1, 1)
    record("growing", 128, complete=False)
    done.clear()
    grown = extents_now(catalog, "*", follow=True)
    cursor = Cursor(round=1, base=extents, extents=grown)
    assert make_plan(catalog, WANT, order="stream", cursor=cursor).clips
    assert done["get"] < 20  # of the growing one


def test_a_recording_that_is_gone_is_missed_without_a_list_of_all_others(store, record):
    fill(store, record)
    with pytest.raises(LookupError) as missed:
        store.commit("gone")
    assert str(missed.value).endswith("r006, r007 and 292 more")
