"""Clips from object storage, over HTTP: how much is asked for, and that they are the same."""

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from object_store import ObjectServer

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.protocols import Store
from ingest.store.records import Counters, RecordSettings, Source
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipConfig
from online.clips.request import ClipRequest
from online.queue import messages
from online.queue.client import Client
from online.queue.server_process import ServerProcess
from online.queue.stream import ServeConfig, Stream

URL = "s3://bucket/store"
LENGTH = 64 * 32 + 2
REQUEST = ClipRequest(clip=ClipConfig(clip_length=32), order="shuffled", max_epochs=1)


def images(start: int, stop: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (LENGTH, 9, 7, 3), np.uint8)[start:stop]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with ObjectServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SETCON_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def store(server: ObjectServer) -> Store:
    store = open_store(URL, create_format="zarr")
    with store.writer(
        "a",
        source=Source(path="/a.mp4", digest="a"),
        settings=RecordSettings(size=None),
        height=9,
        width=7,
        max_chunk_length=8,
    ) as writer:
        for start in range(0, LENGTH, writer.block_length):
            stop = min(start + writer.block_length, LENGTH)
            index = np.arange(start, stop)
            frames = Frames(images(start, stop), index * 1000, index == 0)
            counted = Counters(decoded=stop, stored=stop, gaps=1)
            whole = stop - start == writer.block_length
            writer.append(frames, counted) if whole else writer.finish(frames, counted)
    return store


def test_an_epoch_asks_for_each_byte_once_in_few_requests(
    store: Store, server: ObjectServer
) -> None:
    stored = sum(len(data) for key, data in server.objects.items() if "/frames/c." in key)
    hello = messages.Hello(session="0123456789", credit=1 << 40, request=REQUEST)
    server.requests.clear()
    clips = 0
    with closing(StoreCatalog(open_store(URL), holdout=0.0)) as catalog:
        stream = Stream(catalog, hello, ServeConfig())
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if stream.is_waiting:
                time.sleep(0.001)
            if stream.next_message(0.0, lambda cost: True) is not None:
                is_clip = stream.sent() > 0
                if clips and not is_clip:
                    break  # the end
                clips += is_clip
    assert clips == 64
    asked = server.requests
    assert asked["GET"] + asked["LIST"] + asked["HEAD"] <= 0.4 * 64
    assert asked["bytes"] <= 1.3 * stored


def test_a_server_process_sends_the_clips_of_an_address(store: Store) -> None:
    with (
        ServerProcess(URL, ServeConfig(holdout=0.0)) as served,
        Client(served.address) as client,
    ):
        client.open(REQUEST)
        for _ in range(3):
            delivery = client.next_clip(60.0)
            assert delivery is not None
            clip = delivery.clip
            np.testing.assert_array_equal(
                clip.frames.images, images(clip.spec.start, clip.spec.start + clip.spec.length)
            )
