"""Where a store keeps its bytes: named blobs under one root, each of them whole or absent.

    layout, chunks ──▶ Blobs ──┬── LocalBlobs: files and folders of this machine
                               └── ObjectBlobs: objects of S3, Google Cloud Storage or Azure

A name is a path relative to the root, with `/` between its parts. Nothing above this module opens,
renames, locks or syncs a file, except HDF5, which can only read files (`LocalBlobs.open`).
"""

import re
from pathlib import Path

from ingest.errors import NotAStoreError
from ingest.store.blob_protocols import MAX_BLOB_BYTES, Blob, Blobs, Lease, Put, Tail
from ingest.store.files import LocalBlobs

__all__ = [
    "MAX_BLOB_BYTES",
    "Blob",
    "Blobs",
    "Lease",
    "LocalBlobs",
    "Put",
    "Tail",
    "delete_leftovers",
    "is_address",
    "open_blobs",
]

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OBJECT_STORES = ("s3", "gs", "az")


def is_address(location: str) -> bool:
    """Whether the location of a store is an address, and not a path."""
    return _ADDRESS.match(location) is not None


def open_blobs(location: str | Path, *, durable: bool = True) -> Blobs:
    """The blobs at the location of a store; this alone decides what a location means.

    Unless `durable`, writing does not wait for the disk. Raises NotAStoreError for an address of
    anything but object storage, and where what reads that is not installed.
    """
    found = _ADDRESS.match(location) if isinstance(location, str) else None
    if found is None:
        return LocalBlobs(Path(location), durable=durable)
    if found[1].lower() not in _OBJECT_STORES:
        raise NotAStoreError(
            f"{location}: stores are kept in folders of this machine and in object storage; name a "
            "folder, or an address that begins with s3://, gs:// or az://"
        )
    try:
        from ingest.store.objects import open_objects  # few need it
    except ImportError as error:
        raise NotAStoreError(
            f"{location}: object storage needs obstore; run pip install -e '.[scale]'"
        ) from error
    return open_objects(str(location))


def delete_leftovers(blobs: Blobs) -> None:
    """Delete what a killed writer left half written."""
    for blob in blobs.entries():
        if blob.is_leftover:
            blobs.delete(blob.name)
