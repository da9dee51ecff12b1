"""Videos in object storage: found by name, and read by http(s) addresses that are signed.

s3://bucket/tapes/a.mp4    one video
s3://bucket/tapes          all videos in that folder, not in those below it
s3://bucket/tapes/a*.mp4   those whose names match
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from ingest.addresses import NEEDS_OBSTORE, OBJECT_STORES, scheme_of
from ingest.errors import StoreError, VideoError
from ingest.video.paths import VIDEO_SUFFIXES, natural_order

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Answer = TypeVar("Answer")

SIGNED_FOR = timedelta(days=1)
"""How long an address can be read, at most: not longer than the credentials it was signed with."""
_UNSIGNED = {
    "s3": "AWS_SKIP_SIGNATURE",
    "gs": "GOOGLE_SKIP_SIGNATURE",
    "az": "AZURE_SKIP_SIGNATURE",
}
"""Variables that say that a bucket is public."""
_TRUE = ("1", "true", "on", "yes", "y")


def is_object(address: str) -> bool:
    """Whether an address is that of something in object storage."""
    return scheme_of(address) in OBJECT_STORES


def videos_at(address: str) -> list[str]:
    """The addresses of the videos that one address names; VideoError where it names none.

    Whether a single one is there is not asked.
    """
    _check_signed(address)
    bucket, key = _parts(address)
    folder, name = (key.rstrip("/"), "") if _is_folder(key) else key.rpartition("/")[::2]
    if glob.has_magic(folder):
        raise VideoError(f"{address}: a folder is named in full; only its videos may be matched")
    if name and not glob.has_magic(name):
        return [address]
    listed = _asked(address, lambda store: _videos_in(store, folder))
    if key in listed:  # it is called so
        return [address]
    found = [path for path in listed if fnmatchcase(path.rpartition("/")[2], name or "*")]
    if not found:
        raise VideoError(f"{address}: no videos there; name a video, or a folder that has some")
    return [f"{bucket}/{path}" for path in sorted(found, key=lambda it: natural_order(Path(it)))]


def readable(address: str) -> str:
    """An address that FFmpeg and urllib read: of an object a signed one, any other as it is."""
    if not is_object(address):
        return address
    _, key = _parts(address)
    return _asked(address, lambda store: _signed(store, key))


def _parts(address: str) -> tuple[str, str]:
    """Bucket, as an address, and the name of the object in it."""
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise VideoError(f"{address}: names no bucket; name a video, as {scheme}://bucket/a.mp4")
    if key and {"", ".", ".."} & {*key.rstrip("/").split("/")}:
        raise VideoError(
            f"{address}: obstore reads no names with //, . or .. in them; give the object another"
        )
    return f"{scheme}://{bucket}", key


def _is_folder(key: str) -> bool:
    last = PurePosixPath(key)
    return key.endswith("/") or not (last.suffix.lower() in VIDEO_SUFFIXES or glob.has_magic(key))


def _check_signed(address: str) -> None:
    """Refuse what is public: to sign, obstore would look for credentials all the same."""
    if os.environ.get(_UNSIGNED[scheme_of(address)], "").lower() in _TRUE:
        raise VideoError(f"{address}: is public; name the https:// address of each video instead")


def _signed(store: Any, key: str) -> str:
    import obstore

    return obstore.sign(store, "GET", key, SIGNED_FOR)


def _videos_in(store: ObjectStore, folder: str) -> list[str]:
    import obstore

    objects = obstore.list_with_delimiter(store, f"{folder}/" if folder else None)["objects"]
    paths = [each["path"] for each in objects]
    return [path for path in paths if PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES]


def _asked(address: str, ask: Callable[[ObjectStore], Answer]) -> Answer:
    """What the object store says; VideoError, in a line, where it does not."""
    try:
        from ingest.store.asking import answer, objects_at
    except ModuleNotFoundError as error:
        raise VideoError(f"{address}: {NEEDS_OBSTORE}") from error
    bucket, key = _parts(address)
    try:
        store = objects_at(bucket)
        return answer(bucket, key, lambda: ask(store))
    except StoreError as error:
        raise VideoError(str(error)) from error
