"""A small store with one recording of noise, of which every frame is another."""

from pathlib import Path

import numpy as np

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.protocols import RecordingWriter, Store
from ingest.store.records import RecordSettings, Source, StoreFormat
from ingest.video.reader import Counters


def noise(length: int = 40, *, masks: bool = False, live: bool = False) -> Frames:
    """What the recording holds."""
    images = np.random.default_rng(0).integers(0, 256, (length, 8, 8, 3), np.uint8)
    return Frames(
        images=images,
        pts_ns=np.arange(length),
        gap=np.arange(length) == 0,
        captured_ns=np.arange(length) + 7 if live else None,
        masks=images[..., 0] if masks else None,
    )


def writer_of(store: Store, *, masks: bool, live: bool) -> RecordingWriter:
    """What begins the recording `a` of a made store, or continues it."""
    return store.writer(
        "a",
        source=Source(path="made", digest="made"),
        settings=RecordSettings(size=8),
        height=8,
        width=8,
        has_masks=masks,
        live=live,
    )


def make_store(
    folder: Path,
    store_format: StoreFormat = "zarr",
    *,
    length: int = 40,
    masks: bool = False,
    live: bool = False,
) -> Store:
    """A store whose recording is called `a`."""
    store = open_store(folder, create_format=store_format)
    with writer_of(store, masks=masks, live=live) as writer:
        frames = noise(length, masks=masks, live=live)
        writer.finish(frames, Counters(decoded=length, stored=length, gaps=1))
    return store
