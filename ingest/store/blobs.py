"""Where a store keeps its bytes: named blobs under one root, each of them whole or absent.

    layout, chunks ──▶ Blobs ──┬── LocalBlobs: files and folders of this machine
                               └── ObjectBlobs: objects of S3, Google Cloud Storage or Azure

A name is a path relative to the root, with `/` between its parts. Nothing above this module opens,
renames, locks or syncs a file, except HDF5, which can only read files (`LocalBlobs.open`).
"""

from pathlib import Path

from ingest.addresses import NEEDS_OBSTORE, is_address, may_be_store
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
    "open_blobs",
]


def open_blobs(location: str | Path, *, durable: bool = True) -> Blobs:
    """The blobs at the location of a store; this alone decides what a location means.

    Unless `durable`, writing does not wait for the disk. Raises NotAStoreError for an address of
    anything but object storage, and where what reads that is not installed.
    """
    if not is_address(location):
        return LocalBlobs(Path(location), durable=durable)
    if not may_be_store(location):
        raise NotAStoreError(
            f"{location}: stores are kept in folders of this machine and in object storage; name a "
            "folder, or an address that begins with s3://, gs:// or az://"
        )
    try:
        from ingest.store.objects import open_objects  # few need it
    except ImportError as error:
        raise NotAStoreError(f"{location}: {NEEDS_OBSTORE}") from error
    return open_objects(str(location))


def delete_leftovers(blobs: Blobs) -> None:
    """Delete what a killed writer left half written."""
    for blob in blobs.entries():
        if blob.is_leftover:
            blobs.delete(blob.name)
