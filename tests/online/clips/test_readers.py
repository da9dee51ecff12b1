"""Readers that are opened ahead, of a store in object storage: an S3 server over HTTP."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from object_store import ObjectServer

import online.clips.readers
from ingest.errors import DamagedChunkError, NoSuchRecordingError
from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.cache import ChunkCache
from ingest.store.protocols import Store
from ingest.store.records import Counters, RecordSettings, Source
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor
from online.clips.plan import extents_now, make_plan
from online.clips.readers import OpenReaders
from online.clips.request import ClipRequest

URL = "s3://bucket/store"
LENGTH = 30
NAMES = [f"r{number:02}" for number in range(20)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectServer]:
    with ObjectServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SETCON_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def store(server: ObjectServer) -> Store:
    store = open_store(URL, create_format="zarr")
    for number, name in enumerate(NAMES):
        images = np.full((LENGTH, 8, 8, 3), number, np.uint8)
        frames = Frames(images, np.arange(LENGTH) * 1000, np.arange(LENGTH) == 0)
        with store.writer(
            name,
            source=Source(path=f"/{name}", digest=name),
            settings=RecordSettings(size=8),
            height=8,
            width=8,
        ) as writer:
            writer.finish(frames, Counters(decoded=LENGTH, stored=LENGTH, gaps=1))
    server.requests.clear()
    return store


def test_what_was_fetched_is_read_without_a_request(store: Store, server: ObjectServer) -> None:
    readers = OpenReaders(store, ChunkCache(1 << 20))
    for name in NAMES:
        readers.fetch(name, 3, 9)
        readers.fetch(name, 6, 12)
    readers._ahead.shutdown()
    server.requests.clear()
    for number, name in enumerate(NAMES):
        frames = readers.open(name).read(3, 12)
        assert (frames.images == number).all()
        np.testing.assert_array_equal(frames.pts_ns, np.arange(3, 12) * 1000)
    assert not server.requests
    readers.close()


def test_of_many_recordings_requests_wait_beside_each_other(
    store: Store, server: ObjectServer
) -> None:
    server.delay_seconds, server.most_waiting = 0.1, 0
    with closing(StoreCatalog(open_store(URL))) as catalog:
        extents = extents_now(catalog, "*", follow=False)
        assert list(extents) == NAMES
        assert server.most_waiting > 10
        assert server.requests["GET"] == 1 + len(NAMES)  # the mark, and each record once
        want = ClipRequest(clip=ClipConfig(), order="shuffled")
        plan = make_plan(catalog, want, order="shuffled", cursor=Cursor(extents=extents))
        assert {plan.clips[at].recording for at in range(len(plan.clips))} == set(NAMES)
        assert len(catalog.recordings()) == len(NAMES)
        assert server.requests["GET"] == 1 + len(NAMES)
        server.most_waiting = 0
        for name in NAMES:
            catalog.prefetch(name, 0, 10)
        assert (catalog.fetch(NAMES[-1], 0, 10).images == len(NAMES) - 1).all()
        assert server.most_waiting > 10


def test_a_recording_that_cannot_be_opened_ahead_is_an_error_when_it_is_opened(
    store: Store, server: ObjectServer
) -> None:
    readers = OpenReaders(store, ChunkCache(1 << 20))
    key = "bucket/store/commits/r00.json"
    record = server.objects.pop(key)
    readers.fetch("r00", 0, 5)
    readers.fetch("r00", 5, 9)
    with pytest.raises(NoSuchRecordingError):
        readers.open("r00")
    assert readers.find("r00") is None
    server.objects[key] = record
    readers.fetch("r00", 0, 5)
    assert len(readers.open("r00").read(0, 5)) == 5
    readers.close()


def test_damage_that_was_met_ahead_is_told_to_who_reads(store: Store, server: ObjectServer) -> None:
    key = "bucket/store/recordings/r01/frames/c.0.0.0.0"
    server.objects[key] = server.objects[key][:-9] + bytes(9)
    with closing(StoreCatalog(store)) as catalog:
        catalog.prefetch("r01", 0, 10)
        with pytest.raises(DamagedChunkError, match="recording 'r01'"):
            catalog.fetch("r01", 0, 10)


def test_the_one_used_longest_ago_is_closed_even_while_it_is_being_opened(
    store: Store, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online.clips.readers, "OPEN_REMOTE_READERS", 3)
    server.delay_seconds = 0.01
    readers = OpenReaders(store, ChunkCache(1 << 20))
    for name in NAMES:
        readers.fetch(name, 0, 5)
    assert [name for name in NAMES if name in readers._opened] == NAMES[-3:]
    for number, name in enumerate(NAMES):
        assert (readers.open(name).read(0, 5).images == number).all()
    readers.close()


def test_what_is_too_much_to_fetch_ahead_comes_when_it_is_read(
    store: Store, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online.clips.readers, "MOST_AHEAD", 3)
    server.delay_seconds = 0.3
    readers = OpenReaders(store, ChunkCache(1 << 20))
    for name in NAMES:
        readers.fetch(name, 0, 5)
    assert list(readers._opened) == NAMES[:3]
    server.delay_seconds = 0
    for number, name in enumerate(NAMES):
        assert (readers.open(name).read(0, 5).images == number).all()
    assert len(readers._fetches) == 3
    for fetched in readers._fetches:
        fetched.result(20)
    readers.fetch(NAMES[0], 5, 9)
    assert len(readers._fetches) == 1
    readers.close()


def test_closing_does_not_wait_for_what_is_being_fetched(
    store: Store, server: ObjectServer
) -> None:
    server.delay_seconds = 1
    with closing(StoreCatalog(store)) as catalog:
        for name in NAMES:
            catalog.prefetch(name, 0, 5)
        while not server.waiting:
            time.sleep(0.01)
    assert server.waiting
