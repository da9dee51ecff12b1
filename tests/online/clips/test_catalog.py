import json
import math
from pathlib import Path

import numpy as np
import pytest

import online.clips.readers
from ingest.errors import DamagedChunkError, NoSuchRecordingError, StoreError
from ingest.store.reader import ChunkReader
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig, Interval, cuts

CONFIG = ClipConfig(clip_length=4, frame_stride=2)


def frames_of(intervals) -> set[int]:
    return {frame for i in intervals for frame in range(i.start, i.stop)}


def test_a_catalog_says_what_a_store_holds(store, record):
    record("b", 50, gaps=(20,), masks=True)
    record("a", 30)
    first, second = StoreCatalog(store).recordings()
    assert (first.name, first.length, first.train) == ("a", 30, (Interval(0, 24),))
    assert (second.name, second.gaps, second.has_masks) == ("b", 2, True)
    assert second.held_out == (Interval(40, 50),)
    assert (second.height, second.width, second.complete, second.live) == (8, 8, True, False)


def test_a_glob_chooses_recordings(store, record):
    for name in ("cat-1", "cat-2", "dog"):
        record(name, 20)
    catalog = StoreCatalog(store, recordings="cat-*")
    assert catalog.names() == ["cat-1", "cat-2"]
    assert catalog.names("*2") == ["cat-2"]


def test_fetch_gives_the_frames_asked_for(store, record):
    record("a", 300, mark=7, masks=True)
    frames = StoreCatalog(store).fetch("a", 250, 20, masks=True)
    index = np.arange(250, 270)
    stamp = np.stack([index % 256, index // 256, np.full(20, 7)], axis=1)
    assert np.array_equal(frames.images[:, 0, 0], stamp)
    assert frames.masks is not None
    assert np.array_equal(frames.masks[:, 0, 0], index % 256)
    assert StoreCatalog(store).fetch("a", 0, 2).masks is None


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (29, 2), (0, 31), (3, 0)])
def test_frames_that_are_not_there_are_refused_with_the_range_there_is(
    store, record, start, length
):
    record("a", 30)
    with pytest.raises(IndexError, match=r"a has frames 0\.\.30"):
        StoreCatalog(store).fetch("a", start, length)


def test_a_recording_that_is_not_there_is_refused(store, record):
    with pytest.raises(NoSuchRecordingError):
        StoreCatalog(store).fetch("a", 0, 1)


def test_a_catalog_sees_a_recording_grow_and_never_takes_clips_back(store, record):
    catalog = StoreCatalog(store)
    seen = []
    for length in (200, 500, 900):
        committed = record("a", length, complete=False)
        clips = catalog.clips("a", CONFIG, length=committed, closed=False)
        assert clips[: len(seen)] == seen
        assert len(clips) > len(seen)
        seen = clips
    record("a", 901)
    (summary,) = catalog.recordings()
    assert (summary.length, summary.complete) == (901, True)
    assert catalog.clips("a", CONFIG, length=901, closed=True)[: len(seen)] == seen
    assert all(clip.start + clip.length <= summary.train[0].stop for clip in seen)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("gaps", [(), (37, 38, 90, 333, 410)])
def test_planning_what_is_new_finds_what_planning_all_finds(store, record, monkeypatch, live, gaps):
    monkeypatch.setattr("online.clips.catalog.MILESTONE_FRAMES", 40)
    looked_at: list[int] = []

    def counted(breaks, within, config, *, closed):
        looked_at.append(max((interval.stop for interval in within), default=0))
        return cuts(breaks, within, config, closed=closed)

    grows = {"fps": 1.0, "live": live, "gaps": gaps}
    record("a", 16, complete=False, **grows)
    catalog, late = StoreCatalog(store), StoreCatalog(store)
    base = newest = 0
    for step in range(1, 45):
        length = record("a", 16 * step + 5, complete=step == 44, **grows)
        closed = step == 44
        whole = late.clips("a", CONFIG, length=length, closed=closed)
        for begin in {0, base, base // 2}:  # also for those who come late
            known = late.clips("a", CONFIG, length=begin, closed=False)
            asked = {"base_length": begin, "base_closed": False, "length": length}
            with monkeypatch.context() as patched:
                patched.setattr("online.clips.catalog.cuts", counted)
                count, found = catalog.cuts_beyond("a", CONFIG, **asked, closed=closed)
            if begin == base:
                newest = looked_at[-1]
            assert (count, found.of("a")) == (len(known), whole[len(known) :])
        base = length
    # most of it is what is held out; those who come late look at all
    assert 0 < newest < max(looked_at) / 3


def test_no_triplet_of_a_camera_comes_near_a_held_out_minute(store, record):
    length = record("cam", 700, fps=1.0, live=True, complete=False)
    catalog = StoreCatalog(store)
    clips = catalog.clips("cam", CONFIG, length=length, closed=True)
    held_out = frames_of(catalog.recordings()[0].held_out)
    near = {frame + d for frame in held_out for d in range(-4, 5)}
    assert held_out
    assert clips
    assert not near & {f for c in clips for f in range(c.start, c.start + c.length)}


def test_more_recordings_than_open_readers_can_be_read(store, record, monkeypatch):
    monkeypatch.setattr(online.clips.readers, "OPEN_READERS", 2)
    for i in range(5):
        record(f"r{i:02}", 10, mark=i)
    catalog = StoreCatalog(store)
    for _ in range(2):
        marks = [int(catalog.fetch(n, 3, 1).images[0, 0, 0, 2]) for n in catalog.names()]
        assert marks == list(range(5))
    catalog.close()


@pytest.mark.parametrize("holdout", [-0.1, 1.0, math.nan])
def test_a_share_outside_0_to_1_is_refused(store, holdout):
    with pytest.raises(ValueError, match=f"holdout must be .*, got {holdout}"):
        StoreCatalog(store, holdout=holdout)


def commit_file(store, name):
    return Path(store.location) / "recordings" / name / "commit.json"


def test_a_recording_damaged_from_the_first_is_left_out_until_it_is_repaired(store, record, caplog):
    for name in ("a", "b"):
        record(name, 30)
    whole = commit_file(store, "a").read_bytes()
    commit_file(store, "a").write_text("garbage")
    catalog = StoreCatalog(store)
    for _ in range(2):
        assert catalog.names() == ["b"]
        assert [summary.name for summary in catalog.recordings()] == ["b"]
    assert list(catalog.left_out) == ["a"]
    assert caplog.text.count("left out:") == 1
    commit_file(store, "a").write_bytes(whole)
    assert [summary.name for summary in catalog.recordings()] == ["a", "b"]
    assert not catalog.left_out


def without_breaks(store, name):
    """Make a commit record one of an older program."""
    path = commit_file(store, name)
    written = json.loads(path.read_bytes())
    assert written.pop("breaks")
    path.write_text(json.dumps(written))


def damage_gaps(store, name):
    for part in (Path(store.location) / "recordings" / name / "gap").iterdir():
        part.write_bytes(b"garbage")


def test_a_recording_whose_index_is_needed_and_damaged_is_left_out(store, record):
    for name in ("a", "b"):
        record(name, 30)
        without_breaks(store, name)
    damage_gaps(store, "a")
    catalog = StoreCatalog(store)
    for _ in range(2):
        assert catalog.names() == ["b"]
        assert list(catalog.left_out) == ["a"]


def test_a_damaged_index_that_planning_does_not_need_is_found_when_frames_are_read(store, record):
    record("a", 30)
    damage_gaps(store, "a")
    catalog = StoreCatalog(store)
    assert catalog.names() == ["a"]
    with pytest.raises(DamagedChunkError, match="chunk 0 of `gap` is damaged"):
        catalog.fetch("a", 0, 5)


@pytest.mark.parametrize("live", [True, False])
def test_a_record_that_lists_no_breaks_gives_the_same_clips(store, record, live):
    gaps = (37, 38, 90, 333, 410)
    record("a", 500, gaps=gaps, live=live)
    listed = StoreCatalog(store)
    assert listed.commit("a").breaks == (0, *gaps)
    asked = {"length": 470, "closed": False}
    clips, summaries = listed.clips("a", CONFIG, **asked), listed.recordings()
    without_breaks(store, "a")
    read = StoreCatalog(store)
    assert read.recordings() == summaries
    assert read.clips("a", CONFIG, **asked) == clips
    for start in (0, 38, 91):  # any frame that is trained on
        found = [c.cuts("a", CONFIG, **asked, start=start).of("a") for c in (read, listed)]
        assert found[0] == found[1]


def test_a_recording_damaged_in_use_is_an_error_for_whoever_uses_it(store, record, caplog):
    for name in ("a", "b"):
        record(name, 30)
    catalog = StoreCatalog(store)
    assert catalog.names() == ["a", "b"]
    commit_file(store, "a").write_text("garbage")
    assert catalog.names() == ["a", "b"]
    with pytest.raises(StoreError, match="damaged commit record"):
        catalog.fetch("a", 0, 5)
    assert len(catalog.fetch("b", 0, 5)) == 5
    assert [summary.name for summary in catalog.recordings()] == ["b"]
    assert "left out" in caplog.text


def test_frames_of_a_recording_and_of_one_in_its_place_are_never_mixed(store, record):
    record("a", 60, mark=1)
    catalog = StoreCatalog(store)
    assert catalog.fetch("a", 0, 5).images[0, 0, 0, 2] == 1
    store.remove("a")
    with pytest.raises(NoSuchRecordingError):
        catalog.fetch("a", 5, 5)
    record("a", 60, mark=2, size=16)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"'a' was replaced .* restart the server"):
            catalog.fetch("a", 5, 5)
    assert catalog.recordings() == []
    assert StoreCatalog(store).fetch("a", 5, 5).images[0, 0, 0, 2] == 2


def test_a_recording_replaced_while_it_is_read_is_noticed(store, record, monkeypatch):
    record("a", 60)
    catalog = StoreCatalog(store)
    catalog.commit("a")
    read = ChunkReader.read

    def replaced_meanwhile(reader, start, stop, *, masks):
        frames = read(reader, start, stop, masks=masks)
        store.remove("a")
        record("a", 60, size=16)
        return frames

    monkeypatch.setattr(ChunkReader, "read", replaced_meanwhile)
    with pytest.raises(StoreError, match="was replaced"):
        catalog.fetch("a", 5, 5)


def test_the_same_recording_made_again_is_served_on(store, record):
    record("a", 300)
    catalog = StoreCatalog(store)
    before = catalog.recordings()
    store.remove("a")
    committed = record("a", 200, complete=False)
    (growing,) = catalog.recordings()
    assert growing.train == (Interval(0, committed - committed // 5),)
    record("a", 300)
    assert catalog.recordings() == before
    assert len(catalog.fetch("a", 0, 300)) == 300
