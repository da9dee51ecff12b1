"""Readers, and frames that are brought ahead, of a store in object storage: S3 over HTTP."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from object_store import ObjectServer

import online.clips.catalog
import online.clips.readers
import online.queue.stream
from ingest.errors import DamagedChunkError, NoAnswerError
from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.cache import ChunkCache
from ingest.store.protocols import RecordingWriter, Store
from ingest.store.records import CommitRecord, Counters, RecordSettings, Source
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.cursor import Cursor
from online.clips.plan import extents_now, make_plan
from online.clips.readers import OpenReaders
from online.clips.request import ClipRequest
from online.queue import messages
from online.queue.stream import ServeConfig, Stream

URL = "s3://bucket/store"
LENGTH = 30
NAMES = [f"r{number:02}" for number in range(20)]


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    """The objects of a store that has NAMES."""
    with ObjectServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
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
        return server.objects


@pytest.fixture
def server(
    recordings: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ObjectServer]:
    with ObjectServer() as server:
        server.objects.update(recordings)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SETCON_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def store(server: ObjectServer) -> Store:
    store = open_store(URL)
    server.requests.clear()
    return store


def until_a_clip_is_sent(stream: Stream) -> None:
    while stream.next_message(0.0, lambda _: True) is None or not stream.sent():
        pass


def test_what_was_brought_is_read_without_a_request(store: Store, server: ObjectServer) -> None:
    readers = OpenReaders(store, ChunkCache(1 << 20))
    commits = {name: store.commit(name) for name in NAMES}
    for name in NAMES:
        readers.bring(name, commits[name], 3, 9, after=0)
        readers.bring(name, commits[name], 6, 12, after=1)
    assert not wait(readers._ahead, 20).not_done
    server.requests.clear()
    for number, name in enumerate(NAMES):
        frames = readers.open(name, commits[name]).read(3, 12)
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
            catalog.bring(name, 0, 10)
        assert (catalog.fetch(NAMES[-1], 0, 10).images == len(NAMES) - 1).all()
        assert server.most_waiting > 10


def test_damage_that_was_met_ahead_is_told_to_who_reads(store: Store, server: ObjectServer) -> None:
    key = "bucket/store/recordings/r01/frames/c.0.0.0.0"
    server.objects[key] = server.objects[key][:-9] + bytes(9)
    with closing(StoreCatalog(store)) as catalog:
        catalog.bring("r01", 0, 10)
        with pytest.raises(DamagedChunkError, match="recording 'r01'"):
            catalog.fetch("r01", 0, 10)


def test_the_one_used_longest_ago_is_closed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online.clips.readers, "OPEN_REMOTE_READERS", 3)
    readers = OpenReaders(store, cache := ChunkCache(1 << 20))
    for number, name in enumerate(NAMES):
        commit = store.commit(name)
        assert (readers.open(name, commit).read(0, 5).images == number).all()
        readers.bring(name, commit, 5, 9, after=0)
    assert [name for name in NAMES if readers.find(name) is not None] == NAMES[-3:]
    assert cache.nbytes == 3 * LENGTH * 8 * 8 * 3  # a chunk of each
    readers.close()
    assert cache.nbytes == 0


def test_what_is_too_much_to_bring_is_asked_for_again(
    store: Store, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online.clips.readers, "MOST_AHEAD", 3)
    server.delay_seconds = 0.5
    with closing(StoreCatalog(store)) as catalog:
        assert catalog.names() == NAMES
        coming = [catalog.bring(name, 0, 5, after=9) for name in NAMES[:5]]
        assert [each is not None for each in coming] == [True] * 3 + [False] * 2
        server.delay_seconds = 0
        until = time.monotonic() + 20
        assert catalog.bring(NAMES[4], 0, 5, after=0) is not None  # what is needed now
        while not catalog.bring(NAMES[3], 0, 5, after=9):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_clip_is_read_at_once_while_many_wait_for_theirs(
    store: Store, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online.clips.readers, "AHEAD", 1)
    with closing(StoreCatalog(store)) as catalog:
        catalog.names()
        server.delay_seconds = 0.2
        for name in NAMES:
            catalog.bring(name, 0, 5)
        server.most_waiting = 0
        assert (catalog.fetch(NAMES[-1], 0, 5).images == len(NAMES) - 1).all()
        assert len(catalog._readers._ahead) > len(NAMES) // 2  # theirs have not come


def test_a_stream_goes_on_with_what_it_could_not_bring(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(StoreCatalog(store)) as catalog:
        asked: list[tuple[str, bool]] = []

        def bring(name: str, start: int, length: int, *, after: int) -> Future[None] | None:
            asked.append((name, len(asked) % 3 != 2))
            coming: Future[None] = Future()
            coming.set_result(None)
            return coming if asked[-1][1] else None

        monkeypatch.setattr(catalog, "bring", bring)
        hello = messages.Hello(session="0" * 10, credit=1 << 40, request=ClipRequest())
        stream = Stream(catalog, hello, ServeConfig())
        sent = 0
        while sent < len(NAMES):
            if stream.next_message(0.0, lambda _: True) is not None:
                sent += bool(stream.sent())
    assert [name for name, is_coming in asked if is_coming] == NAMES


@pytest.mark.parametrize(("largest", "expected"), [(8, 20), (500, 3)])
def test_of_large_clips_fewer_are_brought_ahead(
    store: Store, monkeypatch: pytest.MonkeyPatch, largest: int, expected: int
) -> None:
    """The largest there are, wherever in the plan they come."""
    monkeypatch.setattr(online.queue.stream, "BYTES_AHEAD", 3 * 34 * 500 * 500 * 3)
    with closing(StoreCatalog(store)) as catalog:
        asked: list[str] = []
        here: Future[None] = Future()
        here.set_result(None)
        monkeypatch.setattr(catalog, "bring", lambda name, *_, after: asked.append(name) or here)
        sizes = dict.fromkeys(NAMES, 8 * 8 * 3) | {NAMES[-1]: largest * largest * 3}
        monkeypatch.setattr(catalog, "frame_bytes", sizes.__getitem__)
        hello = messages.Hello(session="0" * 10, credit=1 << 40, request=ClipRequest())
        stream = Stream(catalog, hello, ServeConfig())
        until_a_clip_is_sent(stream)
        assert len(asked) == expected


def test_who_begins_does_not_wait_for_all_that_others_will_need(
    store: Store, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online.clips.readers, "AHEAD", 1)
    with closing(StoreCatalog(store)) as catalog:
        catalog.names()
        server.delay_seconds = 0.05
        others = [catalog.bring(name, 0, 5, after=9) for name in NAMES[1:]]
        first = catalog.bring(NAMES[0], 0, 5, after=0)
        assert first is not None
        first.result(20)
        assert sum(other is not None and not other.done() for other in others) > len(NAMES) // 2


def test_a_clip_that_does_not_come_keeps_nobody_waiting(store: Store, server: ObjectServer) -> None:
    with closing(StoreCatalog(store)) as catalog:
        hello = messages.Hello(session="0" * 10, credit=1 << 40, request=ClipRequest())
        stream = Stream(catalog, hello, ServeConfig())
        while stream.next_message(0.0, lambda _: True) is None:
            pass
        stream.sent()  # the plan
        server.delay_seconds = 0.1
        turns = 0
        while stream.next_message(0.0, lambda _: True) is None:
            turns += 1
            assert stream.is_waiting
            assert not stream.held_bytes  # it would keep room from others
        assert turns > 10


def test_what_a_stream_that_ends_has_asked_for_is_given_up(
    store: Store, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online.clips.readers, "AHEAD", 1)
    with closing(StoreCatalog(store)) as catalog:
        hello = messages.Hello(session="0" * 10, credit=1 << 40, request=ClipRequest())
        stream = Stream(catalog, hello, ServeConfig())
        while stream.next_message(0.0, lambda _: True) is None:
            pass
        stream.sent()
        server.delay_seconds = 0.3
        stream.next_message(0.0, lambda _: True)
        assert len(catalog._readers._ahead) == len(NAMES)
        stream.close()
        assert len(catalog._readers._ahead) <= 1


def test_a_clip_without_an_answer_is_not_asked_for_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(StoreCatalog(store)) as catalog:
        refused: Future[None] = Future()
        refused.set_exception(NoAnswerError("no answer"))
        monkeypatch.setattr(catalog, "bring", lambda *_, after: refused)
        monkeypatch.setattr(catalog, "fetch", lambda *_: pytest.fail("it was asked for"))
        hello = messages.Hello(session="0" * 10, credit=1 << 40, request=ClipRequest())
        stream = Stream(catalog, hello, ServeConfig())
        with pytest.raises(NoAnswerError):
            until_a_clip_is_sent(stream)


def test_a_fault_that_may_pass_leaves_out_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or scores would be those of other footage than was asked for."""

    def commit(name: str) -> CommitRecord:
        if name == NAMES[3]:
            raise NoAnswerError("no answer")
        return store_commit(name)

    store_commit = store.commit
    with closing(StoreCatalog(store)) as catalog:
        monkeypatch.setattr(store, "commit", commit)
        with pytest.raises(NoAnswerError):
            catalog.recordings()
        monkeypatch.setattr(store, "commit", store_commit)
        assert [each.name for each in catalog.recordings()] == NAMES


def test_the_extent_stays_that_of_the_latest_record(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sessions look at the same recordings in turns, and one of these grows."""
    monkeypatch.setattr(online.clips.catalog, "STEP_NAMES", 1)
    length = 0

    def block(writer: RecordingWriter) -> Frames:
        times = length + np.arange(writer.block_length)
        return Frames(np.zeros((len(times), 8, 8, 3), np.uint8), times * 1000, times == 0)

    with (
        store.writer(
            "z",
            source=Source(path="/z", digest="z"),
            settings=RecordSettings(size=8),
            height=8,
            width=8,
            max_chunk_length=4,
        ) as writer,
        closing(StoreCatalog(store)) as catalog,
    ):
        length = writer.append(block(writer), Counters(gaps=1)).length
        looking = catalog.naming()
        next(looking)  # by now the record of `z` has been asked for
        time.sleep(0.5)
        later = writer.append(block(writer), Counters(gaps=1))
        assert len(catalog.fetch("z", later.length - 1, 1)) == 1
        for _ in looking:
            pass
        assert catalog.extent("z", follow=True).length == later.length


def test_closing_does_not_wait_for_what_is_on_its_way(
    store: Store, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online.clips.readers, "AHEAD", 2)
    with closing(StoreCatalog(store)) as catalog:
        catalog.names()
        server.delay_seconds = 0.3
        for name in NAMES:
            catalog.bring(name, 0, 5)
        while not server.waiting:
            time.sleep(0.01)
    assert server.waiting
    assert len(catalog._readers._ahead) <= 2  # the others were given up
