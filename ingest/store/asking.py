"""Asking an object store: its answer, or one line that says what is wrong and the remedy."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import TYPE_CHECKING, TypeVar

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from ingest.addresses import scheme_of, without_secrets
from ingest.disk.signals import was_obeyed
from ingest.disk.threads import begun
from ingest.errors import NoAnswerError, NotAStoreError, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SAID_AFTER_SECONDS = 10.0
"""How long the main thread waits for an answer before it says so."""
MORE_ATTEMPTS, RETRY_SECONDS = 3, 0.2
_BROKEN_OFF = "body error"
"""In what obstore says of an answer of which only a part came."""
GRACE_SECONDS = 5.0
"""How long an answer is waited for once a signal told the program to end."""

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
    if wrong := _wrong_in(location):
        raise NotAStoreError(
            f"{without_secrets(location)}: {wrong}; {_ADDRESSES[scheme_of(location)]}"
        )
    try:
        return from_url(location.rstrip("/"))
    except (BaseError, ValueError) as error:
        raise NotAStoreError(
            f"{location}: cannot be used ({_first_line(error)}); {_ADDRESSES[scheme_of(location)]}"
        ) from error


def _wrong_in(location: str) -> str:
    """What would make an address mean another place than it seems to."""
    bucket, _, folder = location.partition("://")[2].rstrip("/").partition("/")
    if "@" in bucket:
        return "an address holds no name and no password"
    for mark in "?#%":
        if mark in bucket + folder:
            return f"the address of a store has no {mark} in it"
    if ":" in bucket:
        return "the name of a bucket has no : in it"
    if {"", ".", ".."} & set(folder.split("/")) and folder:
        return "the address of a store has no //, . or .. in it"
    return ""


def answer(location: str, name: str, ask: Callable[[], Answer]) -> Answer:
    """What `ask` says; NoAnswerError where the object store says something unexpected, or nothing.

    Not an OSError: a network that fails is not a damaged chunk. An answer that breaks off in the
    middle is asked for again, as obstore does where there is no answer: a PUT may be sent twice.
    """
    _FORKS.check(location)
    where = f"{location}/{name}" if name else location
    more = MORE_ATTEMPTS
    while True:
        try:
            return _obeying_signals(where, ask)
        except BaseError as error:
            if not more or _BROKEN_OFF not in str(error):
                raise _unanswered(location, where, error) from error
        more -= 1
        time.sleep(RETRY_SECONDS)


def _unanswered(location: str, where: str, error: BaseError) -> NoAnswerError:
    """The same in one line, with the remedy."""
    credentials = _CREDENTIALS[scheme_of(location)]
    said = _first_line(error)
    if any(place in said for place in _ASKED_THE_MACHINE):
        message = f"{where}: no credentials were found; {credentials}"
    elif "invalid path" in said:
        message = f"{where}: {said}; delete that object, or give it another name"
    elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
        message = f"{where}: the object store refuses ({said}); check the rights, or {credentials}"
    else:
        message = (
            f"{where}: the object store refuses or does not answer ({said}); check the "
            "address, the rights to it and the network"
        )
    return NoAnswerError(message)


def _obeying_signals(where: str, ask: Callable[[], Answer]) -> Answer:
    """What `ask` says. In a call of obstore's the main thread would handle no signal, for minutes
    where there is no answer; so it waits for another thread."""
    if threading.current_thread() is not threading.main_thread():
        return ask()
    since, has_said = time.monotonic(), False
    asked = begun(ask)
    while not wait([asked], 0.5).done:
        if (was_obeyed(since) or 0.0) > GRACE_SECONDS:
            raise NoAnswerError(f"{where}: no answer, and the program was told to end")
        if not has_said and time.monotonic() - since > SAID_AFTER_SECONDS:
            has_said = True
            log.warning("%s: no answer for %.0f s; still waiting", where, SAID_AFTER_SECONDS)
    return asked.result()


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
