"""Asking an object store: its answer, or one line that says what is wrong and the remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from ingest.addresses import scheme_of
from ingest.errors import NotAStoreError, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Answer = TypeVar("Answer")

_ADDRESSES = {
    "s3": "name a bucket and a folder in it, such as s3://bucket/store",
    "gs": "name a bucket and a folder in it, such as gs://bucket/store",
    "az": "name a container and a folder in it, such as az://container/store, and the account in "
    "AZURE_STORAGE_ACCOUNT_NAME",
}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a "
    "public bucket",
    "gs": "set GOOGLE_SERVICE_ACCOUNT to the file of a key, or GOOGLE_SKIP_SIGNATURE=true for a "
    "public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true for a public container",
}
_ASKED_THE_MACHINE = ("/latest/api/token", "/latest/meta-data", "computeMetadata/", "/metadata/")
"""Parts of addresses at which a machine of a cloud tells its own rights: asked for where no others
were given."""


def objects_at(location: str) -> ObjectStore:
    """The object store of an address; NotAStoreError where it is not one that can be used."""
    try:
        return from_url(location.rstrip("/"))
    except (BaseError, ValueError) as error:
        raise NotAStoreError(
            f"{location}: cannot be used ({_first_line(error)}); {_ADDRESSES[scheme_of(location)]}"
        ) from error


def answer(location: str, name: str, ask: Callable[[], Answer]) -> Answer:
    """What `ask` says; StoreError where the object store says something unexpected, or nothing.

    Not an OSError: a network that fails is not a damaged chunk.
    """
    _FORKS.check(location)
    try:
        return ask()
    except BaseError as error:
        where = f"{location}/{name}" if name else location
        credentials = _CREDENTIALS[scheme_of(location)]
        said = _first_line(error)
        if any(place in said for place in _ASKED_THE_MACHINE):
            message = f"{where}: no credentials were found; {credentials}"
        elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
            message = (
                f"{where}: the object store refuses ({said}); check the rights, or {credentials}"
            )
        else:
            message = (
                f"{where}: the object store refuses or does not answer ({said}); check the "
                "address, the rights to it and the network"
            )
        raise StoreError(message) from error


class _Forks:
    """obstore's threads do not live on in a fork, where every request would wait forever."""

    def __init__(self) -> None:
        self._used_by: int | None = None

    def check(self, where: str) -> None:
        self._used_by = self._used_by or os.getpid()
        if self._used_by != os.getpid():
            raise StoreError(
                f"{where}: was read by the process that forked this one, after which it cannot be "
                "read here; start processes by 'spawn' or 'forkserver' (of a DataLoader: "
                "multiprocessing_context)"
            )


_FORKS = _Forks()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
