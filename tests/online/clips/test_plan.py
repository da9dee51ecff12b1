import msgspec
import pytest

from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor, Extent
from online.clips.plan import extents_now, make_plan, shuffling
from online.clips.request import ClipRequest
from online.clips.steps import done
from online.errors import ServerError

WANT = ClipRequest(clip=ClipConfig(clip_length=4, frame_stride=2))


def now(catalog: StoreCatalog, *, follow: bool = False) -> dict[str, Extent]:
    return extents_now(catalog, "*", follow=follow)


def test_a_plan_is_the_same_whenever_it_is_made(store, record):
    record("a", 300)
    record("b", 200)
    catalog = StoreCatalog(store)
    cursor = Cursor(epoch=3, extents=now(catalog))
    first = make_plan(catalog, WANT, order="shuffled", cursor=cursor)
    record("c", 100)  # what comes later is not part of an epoch that has begun
    again = make_plan(StoreCatalog(store), WANT, order="shuffled", cursor=first.start)
    assert again.clips == first.clips
    assert again.start == first.start


def test_a_shuffled_epoch_holds_the_same_clips_in_another_order(store, record):
    record("a", 2000)
    catalog = StoreCatalog(store)
    cursors = [Cursor(epoch=epoch, extents=now(catalog)) for epoch in (0, 1)]
    in_time = make_plan(catalog, WANT, order="stream", cursor=cursors[0]).clips
    shuffled = [make_plan(catalog, WANT, order="shuffled", cursor=c).clips for c in cursors]
    other = msgspec.structs.replace(WANT, seed=1)
    shuffled.append(make_plan(catalog, other, order="shuffled", cursor=cursors[0]).clips)
    assert list(in_time) == sorted(in_time)
    for order in shuffled:
        assert order != in_time
        assert sorted(order) == in_time
    assert shuffled[0] != shuffled[1]
    assert shuffled[0] != shuffled[2]


def test_shuffling_moves_clips_far_and_keeps_some_neighbours_near():
    shuffled = done(shuffling(4096, key="0/0/0")).tolist()
    assert sorted(shuffled) == list(range(4096))
    assert sum(abs(i - clip) for i, clip in enumerate(shuffled)) / 4096 > 1000
    pool = {clip // 8 for clip in shuffled[:128]}
    assert len(pool) == 16
    assert len(done(shuffling(0, key=""))) == 0


def test_shards_share_a_plan_without_rest_or_overlap(store, record):
    record("a", 500)
    catalog = StoreCatalog(store)
    cursor = Cursor(extents=now(catalog))
    whole = make_plan(catalog, WANT, order="shuffled", cursor=cursor)
    shards = [
        make_plan(
            catalog, msgspec.structs.replace(WANT, shard=r, shards=3), order="shuffled",
            cursor=cursor,
        )
        for r in range(3)
    ]  # fmt: skip
    assert sorted(c for shard in shards for c in shard.clips) == sorted(whole.clips)
    (fingerprint,) = {shard.start.fingerprint for shard in shards}
    assert fingerprint != whole.start.fingerprint  # a cursor counts the clips of its own division


def test_recordings_of_one_clip_and_alike_names_reach_every_shard(store, record):
    for number in range(16):
        record(f"clip-{number:04}", 12)
    catalog = StoreCatalog(store)
    cursor = Cursor(extents=now(catalog))
    for shard in range(4):
        want = msgspec.structs.replace(WANT, shard=shard, shards=4)
        assert make_plan(catalog, want, order="stream", cursor=cursor).clips


def test_rounds_of_a_growing_store_add_up_to_what_it_holds_in_the_end(store, record):
    catalog = StoreCatalog(store)
    clips, base = [], {}
    for lengths in ({"a": 200}, {"a": 200, "b": 300}, {"a": 600, "b": 310}, {"c": 50}):
        for name, length in lengths.items():
            record(name, length, complete=length in (310, 50))
        extents = now(catalog, follow=True)
        cursor = Cursor(base=base, extents=extents)
        clips += make_plan(catalog, WANT, order="stream", cursor=cursor).clips
        base = extents
    record("a", 601)
    cursor = Cursor(base=base, extents=now(catalog, follow=True))
    clips += make_plan(catalog, WANT, order="stream", cursor=cursor).clips
    in_the_end = make_plan(catalog, WANT, order="stream", cursor=Cursor(extents=now(catalog)))
    assert sorted(clips) == sorted(in_the_end.clips)


@pytest.mark.parametrize("name", ["a", "gone"])
def test_a_store_that_lost_frames_is_refused(store, record, name):
    record("a", 100)
    cursor = Cursor(extents={name: Extent(101, True)})
    with pytest.raises(ServerError, match="the trainer has seen 101; the store was replaced"):
        make_plan(StoreCatalog(store), WANT, order="stream", cursor=cursor)
