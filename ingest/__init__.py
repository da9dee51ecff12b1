"""Recordings: video decoded once into a store of frames that many readers share.

    import ingest

    ingest.ingest_sources(["bikes.mp4"], "store", ingest.RecordSettings(size=128))
    store = ingest.open_store("store")
    with store.reader("bikes") as reader:
        frames = reader.read(0, reader.commit.length)
        frames.images    # uint8 (n, 128, 128, 3)
    for recording in ingest.verify_store(store):
        print(recording.name, recording.ok)

The public names are imported when they are first used: `import ingest` by itself imports neither
FFmpeg nor zarr nor HDF5.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.errors import (
        DamagedChunkError,
        ExportError,
        IngestError,
        NoSuchRecordingError,
        NotAStoreError,
        RecordingExistsError,
        RecordingLockedError,
        ReleasedError,
        SourceStopped,
        StorageFullError,
        StoreError,
        VideoError,
    )
    from ingest.export import Exported, export_recording
    from ingest.fleet import Fleet
    from ingest.frame import Frame, Frames
    from ingest.job import IngestOutcome
    from ingest.jobs import ingest_sources
    from ingest.live.camera import Camera
    from ingest.live.capture import Captured, capture, open_live_store
    from ingest.live.devices import Device, parse_device
    from ingest.live.pushed import PushedCapture, open_capture
    from ingest.open import open_store
    from ingest.publish import Published, PublishProgress, publish_store
    from ingest.recorder import Recorded, RecordProgress, record
    from ingest.store.cache import ChunkCache
    from ingest.store.protocols import RecordingReader, RecordingWriter, Store
    from ingest.store.records import CommitRecord, Counters, RecordSettings, Source
    from ingest.verify import Verified, VerifyProgress, verify_store
    from ingest.video.open import open_video
    from ingest.video.reader import VideoInfo, VideoReader

__all__ = [
    "Camera",
    "Captured",
    "ChunkCache",
    "CommitRecord",
    "Counters",
    "DamagedChunkError",
    "Device",
    "ExportError",
    "Exported",
    "Fleet",
    "Frame",
    "Frames",
    "IngestError",
    "IngestOutcome",
    "NoSuchRecordingError",
    "NotAStoreError",
    "PublishProgress",
    "Published",
    "PushedCapture",
    "RecordProgress",
    "RecordSettings",
    "Recorded",
    "RecordingExistsError",
    "RecordingLockedError",
    "RecordingReader",
    "RecordingWriter",
    "ReleasedError",
    "Source",
    "SourceStopped",
    "StorageFullError",
    "Store",
    "StoreError",
    "Verified",
    "VerifyProgress",
    "VideoError",
    "VideoInfo",
    "VideoReader",
    "capture",
    "export_recording",
    "ingest_sources",
    "open_capture",
    "open_live_store",
    "open_store",
    "open_video",
    "parse_device",
    "publish_store",
    "record",
    "verify_store",
]

_HOMES = {
    "Camera": "ingest.live.camera",
    "Captured": "ingest.live.capture",
    "ChunkCache": "ingest.store.cache",
    "CommitRecord": "ingest.store.records",
    "Counters": "ingest.store.records",
    "DamagedChunkError": "ingest.errors",
    "Device": "ingest.live.devices",
    "ExportError": "ingest.errors",
    "Exported": "ingest.export",
    "Fleet": "ingest.fleet",
    "Frame": "ingest.frame",
    "Frames": "ingest.frame",
    "IngestError": "ingest.errors",
    "IngestOutcome": "ingest.job",
    "NoSuchRecordingError": "ingest.errors",
    "NotAStoreError": "ingest.errors",
    "PublishProgress": "ingest.publish",
    "Published": "ingest.publish",
    "PushedCapture": "ingest.live.pushed",
    "RecordProgress": "ingest.recorder",
    "RecordSettings": "ingest.store.records",
    "Recorded": "ingest.recorder",
    "RecordingExistsError": "ingest.errors",
    "RecordingLockedError": "ingest.errors",
    "RecordingReader": "ingest.store.protocols",
    "RecordingWriter": "ingest.store.protocols",
    "ReleasedError": "ingest.errors",
    "Source": "ingest.store.records",
    "SourceStopped": "ingest.errors",
    "StorageFullError": "ingest.errors",
    "Store": "ingest.store.protocols",
    "StoreError": "ingest.errors",
    "Verified": "ingest.verify",
    "VerifyProgress": "ingest.verify",
    "VideoError": "ingest.errors",
    "VideoInfo": "ingest.video.reader",
    "VideoReader": "ingest.video.reader",
    "capture": "ingest.live.capture",
    "export_recording": "ingest.export",
    "ingest_sources": "ingest.jobs",
    "open_capture": "ingest.live.pushed",
    "open_live_store": "ingest.live.capture",
    "open_store": "ingest.open",
    "open_video": "ingest.video.open",
    "parse_device": "ingest.live.devices",
    "publish_store": "ingest.publish",
    "record": "ingest.recorder",
    "verify_store": "ingest.verify",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: FFmpeg, zarr and HDF5 take half a second."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ingest' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet."""
    return __all__
