import json
from collections import Counter
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from ingest.zarr_store import create_zarr_store
from online.client import Client
from online.errors import ConfigError, OnlineError, ServerError
from online.feed import Feed, StreamConfig

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
def feeding(addresses, config: StreamConfig = CONFIG, *, seed: int = 3):
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for address in addresses]
        yield Feed(clients, config.request(seed=seed))


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
        (spec.server, triplet) for spec in specs for triplet in spec.triplet_ids(CONFIG.clip)
    )
    # 160 and 48 training frames and 48 again, less 4 at each beginning
    assert len(offered) == 156 + 44 + 44
    assert set(offered.values()) == {2}


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
            assert np.array_equal(again.images, clip.images)
            assert np.array_equal(again.pts_ns, clip.pts_ns)


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
        served(of=create_zarr_store(tmp_path / "empty")) as address,
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


@pytest.mark.parametrize("bad", [{"clip_length": 0}, {"max_epochs": -1}, {"hop": 0}])
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        StreamConfig(**bad)
