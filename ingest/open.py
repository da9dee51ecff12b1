"""The right store for a location; zarr and HDF5 are imported when a recording needs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ingest.disk.durable import clear_write_errors
from ingest.errors import NotAStoreError
from ingest.store.blobs import Blobs, open_blobs
from ingest.store.directory import DirectoryStore, OpenFiles
from ingest.store.layout import StoreLayout, holds_store
from ingest.store.records import StoreFormat

if TYPE_CHECKING:
    from ingest.store.protocols import ChunkFiles, Store


def open_store(
    location: str | Path, *, create_format: StoreFormat | None = None, durable: bool = True
) -> Store:
    """Open a store, or make one of `create_format` where the location is free or an empty folder.

    What is written through one that is not `durable` is safe from a kill, not from a power cut.
    Raises NotAStoreError where the location holds anything else, or a store of another format.
    """
    blobs = open_blobs(location, durable=durable)
    if create_format is not None and blobs.found() is None:
        layout = _create(blobs, create_format)
    else:
        layout = StoreLayout.open(blobs)
    if create_format is not None and layout.format != create_format:
        raise NotAStoreError(
            f"{location}: a store of format {layout.format}, not {create_format}; leave the format "
            "out or name another path"
        )
    if layout.is_sharded:
        return DirectoryStore(layout, _open_sharded_files)
    return DirectoryStore(layout, _OPEN_FILES[layout.format])


def open_or_create_store(location: str | Path, *, durable: bool = True) -> Store:
    """Open a store of any format, or make one of zarr; otherwise as `open_store`."""
    blobs = open_blobs(location)
    is_there = holds_store(blobs)
    if is_there and blobs.is_remote:  # whoever made it may have been killed after the mark
        _create_groups(StoreLayout.open(blobs))
    return open_store(location, create_format=None if is_there else "zarr", durable=durable)


def _create(blobs: Blobs, store_format: StoreFormat) -> StoreLayout:
    layout = StoreLayout.create(blobs, store_format)
    if store_format == "zarr":  # the store itself is a group to zarr, of which recordings are part
        _create_groups(layout)
    return layout


def _create_groups(layout: StoreLayout) -> None:
    """Describe the groups that are not described yet."""
    from ingest.store.formats.zarr_array import GROUP, create_group

    with clear_write_errors(layout.blobs.location):
        for blobs in (layout.blobs, layout.all_recordings):
            if not blobs.exists(GROUP):
                create_group(blobs)


def _open_zarr_files(blobs: Blobs, where: str) -> ChunkFiles:
    from ingest.store.formats.zarr_files import ZarrFiles

    return ZarrFiles(blobs, where)


def _open_sharded_files(blobs: Blobs, where: str) -> ChunkFiles:
    from ingest.store.formats.zarr_files import ZarrFiles

    return ZarrFiles(blobs, where, are_sharded=True)


def _open_h5_files(blobs: Blobs, where: str) -> ChunkFiles:
    from ingest.store.formats.h5_files import H5Files

    return H5Files(blobs, where)


_OPEN_FILES: dict[StoreFormat, OpenFiles] = {"zarr": _open_zarr_files, "h5": _open_h5_files}
