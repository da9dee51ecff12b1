import msgspec
import pytest

from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor, Extent
from online.clips.plan import extents_now, make_plan
from online.clips.request import ClipRequest
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


@pytest.mark.parametrize(
    ("order", "shards", "base", "fingerprint", "first"),
    [
        ("stream", 1, 0, 23078681, [("a", 0, 8), ("a", 4, 8), ("a", 8, 8), (181, 181, 177, 0)]),
        (
            "shuffled",
            1,
            0,
            3145851208,
            [("a", 218, 8), ("b", 196, 8), ("a", 62, 8), (181, 181, 177, 0)],
        ),
        (
            "shuffled",
            3,
            0,
            588270278,
            [("a", 62, 8), ("a", 0, 8), ("a", 526, 8), (61, 181, 177, 0)],
        ),
        (
            "shuffled",
            2,
            100,
            1584151848,
            [("a", 154, 8), ("a", 438, 8), ("a", 78, 8), (81, 163, 160, 7)],
        ),
    ],
)
def test_a_plan_is_that_of_earlier_versions(store, record, order, shards, base, fingerprint, first):
    """Checkpoints hold cursors in it."""
    record("a", 700, gaps=(37, 38, 90, 333, 410))
    record("b", 300)
    record("c", 48, complete=False)
    catalog = StoreCatalog(store)
    want = msgspec.structs.replace(WANT, shard=shards - 1, shards=shards, seed=5)
    cursor = Cursor(
        epoch=2,
        round=1 if base else 0,
        base={"a": Extent(base, False)} if base else {},
        extents=now(catalog) | {"b": Extent(300, True, 60)},
    )
    plan = make_plan(catalog, want, order=order, cursor=cursor)
    found = [(clip.recording, clip.start, clip.length) for clip in plan.clips[:3]]
    counts = (len(plan.clips), plan.total, plan.full, plan.start.released)
    assert (plan.start.fingerprint, [*found, counts]) == (fingerprint, first)


@pytest.mark.parametrize("order", ["stream", "shuffled"])
def test_a_vast_plan_holds_nothing_for_each_clip_and_is_shared_without_rest(
    store, record, monkeypatch, order
):
    monkeypatch.setattr("online.clips.plan.MAX_PACKED", 150)
    for name, length in (("a", 700), ("b", 11), ("c", 900)):
        record(name, length, gaps=(37, 38, 90, 333, 410))
    catalog = StoreCatalog(store)
    cursor = Cursor(extents=now(catalog))
    whole = make_plan(catalog, WANT, order=order, cursor=cursor)
    in_time = [clip for name in "abc" for clip in catalog.clips(
        name, WANT.clip, length=catalog.commit(name).length, closed=True
    )]  # fmt: skip
    assert sorted(whole.clips) == in_time
    assert (list(whole.clips) == in_time) == (order == "stream")
    assert whole.total == len(whole.clips) == len(in_time)
    shards = [
        make_plan(
            catalog, msgspec.structs.replace(WANT, shard=r, shards=7), order=order, cursor=cursor
        )
        for r in range(7)
    ]
    assert sorted(c for shard in shards for c in shard.clips) == in_time
    (fingerprint,) = {shard.start.fingerprint for shard in shards}
    assert fingerprint != whole.start.fingerprint
    assert max(shard.clips.nbytes for shard in shards) < 1000
    again = make_plan(StoreCatalog(store), WANT, order=order, cursor=whole.start)
    assert (again.start, again.clips) == (whole.start, whole.clips)
    other = msgspec.structs.replace(WANT, clip=ClipConfig(clip_length=5, frame_stride=2))
    other_plan = make_plan(catalog, other, order=order, cursor=cursor)
    assert other_plan.start.fingerprint != whole.start.fingerprint
