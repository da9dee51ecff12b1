import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from streaming import triplets_of

from ingest.open import open_store
from online.clips.config import StreamConfig
from online.errors import ConfigError, OnlineError, ServerError
from online.queue.client import Client
from online.queue.feed import Fate, Feed

CONFIG = StreamConfig(clip_length=4, frame_stride=2, max_epochs=2, order="shuffled")
BOUND = 20.0


@pytest.fixture
def two(store, record, served, tmp_path):
    """Addresses of two servers; the second offers a part of the same store."""
    record("long", 200, mark=1)
    record("short", 60, mark=2)

    @contextmanager
    def serving():
        with (
            served() as first,
            served(f"ipc://{tmp_path}/sockets/t", recordings="short") as second,
        ):
            yield first, second

    return serving


@contextmanager
def feeding(
    addresses,
    config: StreamConfig = CONFIG,
    *,
    seed: int = 3,
    shard: int = 0,
    shards: int = 1,
    **options,
):
    request = config.request(seed=seed, shard=shard, shards=shards)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for address in addresses]
        yield Feed(clients, request, **options)


def drain(feed: Feed, most: int = 10_000) -> list:
    specs = []
    while len(specs) < most and (clip := feed.next(BOUND)) is not None:
        specs.append(clip.spec)
        feed.inserted(clip)
    return specs


def test_servers_take_turns_and_the_longer_one_goes_on_alone(two):
    with two() as addresses, feeding(addresses) as feed:
        specs = drain(feed)
        assert feed.ended
    shorter = sum(spec.server == 1 for spec in specs)
    assert [spec.server for spec in specs[: 2 * shorter]] == [0, 1] * shorter
    assert all(spec.server == 0 for spec in specs[2 * shorter :])
    assert {spec.recording for spec in specs if spec.server == 1} == {"short"}


def test_the_order_is_that_of_the_seed_and_nothing_else(two):
    seen = []
    with two() as addresses:
        for seed in (3, 3, 4):
            with feeding(addresses, seed=seed) as feed:
                seen.append(drain(feed))
    assert seen[0] == seen[1] != seen[2]
    assert sorted(seen[0]) == sorted(seen[2])


def test_a_restored_feed_offers_what_was_not_inserted_and_nothing_else(two):
    with two() as addresses:
        with feeding(addresses) as feed:
            whole = drain(feed)
        for taken in (0, 1, 8, len(whole) // 2 + 1, len(whole)):
            with feeding(addresses) as feed:
                specs = drain(feed, taken)
                feed.next(BOUND)  # offered, and lost when the trainer is killed
                state = json.loads(json.dumps(feed.state()))
            with feeding(addresses) as feed:
                feed.restore(state)
                specs += drain(feed)
                assert specs == whole


def test_every_triplet_is_offered_once_an_epoch(two):
    with two() as addresses, feeding(addresses) as feed:
        specs = drain(feed)
    offered = Counter(
        (spec.server, triplet) for spec in specs for triplet in triplets_of(spec, CONFIG.clip)
    )
    # 160 and 48 training frames and 48 again, less 4 at each beginning
    assert len(offered) == 156 + 44 + 44
    assert set(offered.values()) == {2}


def test_two_trainers_with_a_shard_each_get_disjoint_halves(two):
    halves = []
    with two() as addresses:
        with feeding(addresses[:1]) as feed:
            whole = drain(feed)
        for shard in (0, 1):
            with feeding(addresses[:1], shard=shard, shards=2) as feed:
                halves.append(drain(feed))
    assert abs(len(halves[0]) - len(halves[1])) <= 4  # one for each end of a recording
    assert sorted(halves[0] + halves[1]) == sorted(whole)


def test_only_the_first_epoch_brings_clips_for_the_first_time(two):
    with two() as addresses, feeding(addresses[:1]) as feed:
        first = []
        while (clip := feed.next(BOUND)) is not None:
            assert feed.first_time(clip) == (feed.epoch == 0)
            first.append(feed.first_time(clip))
            feed.inserted(clip)
    half = len(first) // 2
    assert first == [True] * half + [False] * half


def test_a_clip_comes_back_from_the_server_it_came_from(two):
    with two() as addresses, feeding(addresses) as feed:
        for _ in range(4):
            clip = feed.next(BOUND)
            assert clip is not None
            feed.inserted(clip)
            again = feed.fetch_clip(clip.spec)
            assert again.spec == clip.spec
            assert np.array_equal(again.frames.images, clip.frames.images)
            assert np.array_equal(again.frames.pts_ns, clip.frames.pts_ns)


def test_a_clip_that_does_not_come_in_time_is_none_and_the_feed_goes_on(
    store, record, served, tmp_path
):
    record("a", 60)
    address = f"ipc://{tmp_path}/sockets/s"
    with feeding([address]) as feed:
        assert feed.next(0.2) is None
        assert not feed.ended
        with served():
            assert feed.next(BOUND) is not None


def test_a_refusal_is_passed_on(tmp_path, served):
    with (
        served(of=open_store(tmp_path / "empty", create_format="zarr")) as address,
        feeding([address]) as feed,
        pytest.raises(ServerError, match="no recording matches"),
    ):
        feed.next(BOUND)


def test_a_clip_must_be_inserted_before_the_next(two):
    with two() as addresses, feeding(addresses) as feed:
        clip = feed.next(BOUND)
        assert clip is not None
        with pytest.raises(OnlineError, match="must be inserted first"):
            feed.next(BOUND)
        feed.inserted(clip)
        with pytest.raises(OnlineError, match="not the clip that was offered"):
            feed.inserted(clip)


@pytest.mark.parametrize(
    ("config", "seed", "complaint"),
    [
        (StreamConfig(clip_length=5, frame_stride=2, order="shuffled"), 3, "settings of clip"),
        (StreamConfig(clip_length=4, frame_stride=2), 3, "settings of order"),
        (CONFIG, 4, "settings of seed"),
    ],
)
def test_a_state_of_other_settings_is_refused_by_name(two, config, seed, complaint):
    with two() as addresses:
        with feeding(addresses) as feed:
            drain(feed, 3)
            state = feed.state()
        with (
            feeding(addresses, config, seed=seed) as feed,
            pytest.raises(ConfigError, match=complaint),
        ):
            feed.restore(state)
        with (
            feeding(addresses[:1]) as feed,
            pytest.raises(ConfigError, match="2 servers, this run has 1"),
        ):
            feed.restore(state)


def test_more_epochs_can_be_asked_for_when_a_run_is_continued(two):
    once = StreamConfig(clip_length=4, frame_stride=2, max_epochs=1, order="shuffled")
    with two() as addresses:
        with feeding(addresses) as feed:
            whole = drain(feed)
        with feeding(addresses[:1], once) as feed:
            first = drain(feed)
            state = feed.state()
        with feeding(addresses[:1]) as feed:
            feed.restore(state)
            both = first + drain(feed)
    assert both == [spec for spec in whole if spec.server == 0]


@pytest.mark.parametrize(
    "bad",
    [
        {"clip_length": 0},
        {"max_epochs": -1},
        {"frame_stride": 0},
        {"max_delay_seconds": -1.0},
        {"max_delay_seconds": math.nan},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad):
    [(name, value)] = bad.items()
    with pytest.raises(ValueError, match=rf"{name} must be at least [01], got {value}"):
        StreamConfig(**bad)


@pytest.mark.parametrize("bad", [{"shard": 1}, {"shard": -1}, {"shards": 0}])
def test_a_shard_that_there_is_not_is_refused(bad):
    with pytest.raises(ValueError, match=r"shard must lie in 0\.\.shards-1, got -?\d of \d"):
        CONFIG.request(seed=0, **bad)


def test_the_fate_of_each_clip_is_reported_once_whatever_was_lost_since_the_checkpoint(two):
    fates: dict[int, Fate] = {}
    with two() as addresses:
        with feeding(addresses) as feed:
            whole = drain(feed)
        state = None
        for more in (3, 7, 0, 5, len(whole)):
            told: list[Fate] = []
            with feeding(addresses, observe=told.append) as feed:
                if state is not None:
                    feed.restore(state)
                drain(feed, more)
                state = json.loads(json.dumps(feed.state()))
                if not feed.ended:
                    drain(feed, 4)  # after the checkpoint: forgotten when the trainer is killed
            for fate in told:  # what is reported again is the same
                assert fates.setdefault(fate.offered, fate) == fate
    entries = [fates[number] for number in range(1, len(whole) + 1)]
    assert len(fates) == len(whole)
    assert [fate.spec for fate in entries] == whole
    assert {fate.kind for fate in entries} == {"inserted"}
    for server in (0, 1):
        places = [(e.epoch, e.round, e.index) for e in entries if e.spec.server == server]
        half = len(places) // 2
        assert places == [(epoch, 0, i) for epoch in (0, 1) for i in range(half)]
    assert state is not None
    assert state["counters"]["inserted"] == len(whole)


def old_state(feed: Feed) -> dict:
    """What a program wrote that had `hop`, a ledger and a count of skipped frames."""
    state = json.loads(json.dumps(feed.state()))
    state["request"]["clip"]["hop"] = 1
    state["counters"]["skipped_frames"] = 0
    state["ledger_size"] = 0
    for cursor in filter(None, state["cursors"]):
        cursor["released_frames"] = 0
    return state


def test_a_state_of_an_older_program_is_continued_with(two):
    with two() as addresses:
        with feeding(addresses) as feed:
            whole = drain(feed)
        with feeding(addresses) as feed:
            first = drain(feed, 9)
            state = old_state(feed)
        with feeding(addresses) as feed:
            feed.restore(state)
            assert first + drain(feed) == whole
            assert feed.counters.inserted == len(whole)
        state["request"]["clip"]["hop"] = 2
        with feeding(addresses) as feed, pytest.raises(ConfigError, match="saved with hop 2"):
            feed.restore(state)


WRITER = """
import sys
from pathlib import Path
from ingest.open import open_store
from ingest.store.records import RecordSettings, Source
store, name = sys.argv[1:]
frames = {"height": 8, "width": 8, "has_masks": False, "live": True, "max_chunk_length": 16}
source, settings = Source(path=name, digest=name), RecordSettings(size=8)
with open_store(Path(store)).writer(name, source=source, settings=settings, **frames):
    print("writing", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def being_written(store, name: str) -> Iterator[None]:
    """A process that continues a recording, but adds nothing; killed in the end."""
    arguments = [sys.executable, "-c", WRITER, store.location, name]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
            yield
        finally:
            writer.kill()


def test_of_a_camera_that_no_one_records_any_more_nothing_is_skipped(record, served):
    """Its capture was killed: there is nothing newer to catch up with."""
    record("camera", 320, live=True, complete=False)
    live = StreamConfig(clip_length=4, frame_stride=2)
    with (
        served(follow=True, holdout=0.0) as address,
        feeding([address], live, max_delay_seconds=2.0, now_ns=lambda: 10**18) as feed,
    ):
        for _ in range(3):
            feed.inserted(feed.next(BOUND))
    assert (feed.counters.inserted, feed.counters.skipped) == (3, 0)


@pytest.mark.parametrize("how", ["killed", "finished"])
def test_a_trainer_learns_promptly_that_a_camera_is_not_recorded_any_more(
    store, record, served, how
):
    """Clips that wait here since before are not skipped either, and no round has begun."""
    record("camera", 320, live=True, complete=False)  # frame i was captured at i / 30 s
    live = StreamConfig(clip_length=4, frame_stride=2)
    now_seconds = 200 / 30
    with served(follow=True, holdout=0.0) as address, Client(address) as client:
        feed = Feed(
            [client],
            live.request(seed=3),
            max_delay_seconds=2.0,
            now_ns=lambda: round(1e9 * now_seconds),
        )
        with being_written(store, "camera"):
            feed.inserted(first := feed.next(BOUND))
            assert client.recorded == {"camera"}
        if how == "finished":
            record("camera", 321, live=True)
        ended_at = time.monotonic()
        while client.recorded:
            assert time.monotonic() - ended_at < BOUND
            time.sleep(0.02)
        now_seconds = 1e9
        rest = drain(feed, 40)
    skipped = feed.counters.skipped
    assert skipped > 0
    assert rest[0].start == first.spec.start + 4  # the next one, though it is far too old
    assert feed.counters.offered == skipped + 1 + len(rest)


def test_a_trainer_that_is_too_slow_for_a_camera_skips_and_counts_what_is_too_old(
    store, record, served
):
    record("camera", 320, live=True, complete=False)  # frame i was captured at i / 30 s
    fates: list[Fate] = []
    live = StreamConfig(clip_length=4, frame_stride=2)
    now_seconds = 100 / 30
    with (
        being_written(store, "camera"),
        served(follow=True, holdout=0.0) as address,
        feeding(
            [address],
            live,
            max_delay_seconds=2.0,
            observe=fates.append,
            now_ns=lambda: round(1e9 * now_seconds),
        ) as feed,
    ):
        first = feed.next(BOUND)
        assert first is not None
        assert feed.counters.offered == feed.counters.skipped > 0
        # the last frame is the first that is at most two seconds old
        assert 40 <= first.spec.start + first.spec.length - 1 < 44
        feed.inserted(first)
        now_seconds = 250 / 30
        last = feed.next(BOUND)
        assert last is not None
        assert 190 <= last.spec.start + last.spec.length - 1 < 194
        feed.inserted(last)
        counters = feed.counters
    assert [fate.index for fate in fates] == list(range(counters.offered))
    assert [fate.offered for fate in fates] == list(range(1, counters.offered + 1))
    assert [fate.spec for fate in fates if fate.kind == "inserted"] == [first.spec, last.spec]
    assert counters.skipped == len(fates) - 2


@pytest.mark.parametrize("serving", [{"follow": False}, {"follow": True, "complete": True}])
def test_footage_that_is_not_being_recorded_any_more_is_never_too_old(record, served, serving):
    complete = serving.pop("complete", False)
    record("camera", 160, live=True, complete=complete)
    live = StreamConfig(clip_length=4, frame_stride=2)
    with (
        served(holdout=0.0, **serving) as address,
        feeding([address], live, max_delay_seconds=1e-3) as feed,
    ):
        assert len(drain(feed, 30)) == 30
        assert feed.counters.skipped == 0
