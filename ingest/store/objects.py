"""Blobs as objects of S3, Google Cloud Storage or Azure, by way of obstore.

    s3://bucket/store   gs://bucket/store   az://container/store

Nothing there can be locked or renamed. What one writer puts, another replaces only if it names the
version that it knows (`put_if`), and on that claims are built (see `claims`). What is read again is
kept on this machine (see `blocks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from ingest.store.asking import Answer, answer, objects_at
from ingest.store.blob_protocols import MAX_BLOB_BYTES, Blob, Lease, Put, Tail
from ingest.store.blocks import Blocks
from ingest.store.claims import Claim, writer_of

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore

_MAX_RECORD_BYTES = 1 << 20


class Version(NamedTuple):
    """Which of the things that were put under one name; stores use one of the two, or both."""

    e_tag: str | None
    version: str | None


class Found(NamedTuple):
    """A small object as it is now."""

    data: bytes
    version: Version
    writer: str
    """Who wrote it, where that was said."""


def open_objects(location: str) -> ObjectBlobs:
    """The objects below an address; NotAStoreError where it is none that can be used."""
    root = location.rstrip("/")
    return ObjectBlobs(objects_at(location), root, Blocks.of_this_user(root))


class ObjectBlobs:
    """Blobs as objects whose names begin with that of a folder."""

    is_remote = True
    durable = True

    def __init__(
        self,
        objects: ObjectStore,
        location: str,
        blocks: Blocks,
        *,
        folder: str = "",
        claim: Claim | None = None,
    ) -> None:
        self._objects = objects
        self._root = location
        self._blocks = blocks
        self._folder = folder
        self._claim = claim

    @property
    def location(self) -> str:
        """The address, as messages show it and as it is opened again."""
        return f"{self._root}/{self._folder}" if self._folder else self._root

    def within(self, folder: str) -> ObjectBlobs:
        """The objects of one folder."""
        return self._like_this(self._key(folder), self._claim)

    def claimed_by(self, claim: Claim) -> ObjectBlobs:
        """The same objects, put only as long as a claim holds."""
        return self._like_this(self._folder, claim)

    def _like_this(self, folder: str, claim: Claim | None) -> ObjectBlobs:
        return ObjectBlobs(
            self._objects,
            self._root,
            self._blocks,
            folder=folder,
            claim=claim,
        )

    def found(self) -> str | None:
        """What is at the root; None where nothing is."""
        return "a place with other objects in it" if any(self.entries()) else None

    def get(self, name: str, *, most_bytes: int = MAX_BLOB_BYTES) -> bytes:
        """All bytes of an object."""

        def get() -> bytes:
            return _all_bytes(obstore.get(self._objects, self._key(name)), name, most_bytes)

        return self._asked(name, get)

    view = get

    def stamp(self, name: str) -> None:
        """Nothing: to ask for it would be a request, as reading is."""

    def look(self, name: str) -> Found | None:
        """A small object with its version; None where there is none."""

        def look() -> Found | None:
            try:
                result = obstore.get(self._objects, self._key(name))
            except FileNotFoundError:
                return None
            data = _all_bytes(result, name, _MAX_RECORD_BYTES)
            writer = str(result.attributes.get("writer", ""))
            return Found(data, _version(result.meta), writer)

        return self._asked(name, look)

    def version(self, name: str) -> Version | None:
        """Which object is there now; None where there is none."""

        def head() -> Version | None:
            try:
                return _version(obstore.head(self._objects, self._key(name)))
            except FileNotFoundError:
                return None

        return self._asked(name, head)

    def tail(self, name: str, count: int) -> Tail:
        """The last bytes of an object, and what is needed to read more of just that one."""

        def tail() -> Tail:
            options: GetOptions = {"range": {"suffix": count}}
            try:
                result = obstore.get(self._objects, self._key(name), options=options)
            except BaseError as error:
                if "416" not in str(error):
                    raise
                meta = obstore.head(self._objects, self._key(name))
                if meta["size"]:
                    raise
                return Tail(b"", 0, meta["e_tag"] or "")  # of nothing there is no last part
            meta = result.meta
            return Tail(bytes(result.bytes()), meta["size"], meta["e_tag"] or "")

        return self._asked(name, tail)

    def get_range(
        self, name: str, start: int, stop: int, tail: Tail, *, fresh: bool = False
    ) -> bytes:
        """Some bytes of the object that `tail` is of; `fresh`, not those kept on this machine."""
        get, size = self._getter(name, tail), tail.size_bytes
        return self._blocks.read(self._block_name(name, tail), start, stop, size, get, fresh)

    def bring(self, name: str, start: int, stop: int, tail: Tail) -> None:
        """Have those bytes on this machine."""
        get = self._getter(name, tail)
        self._blocks.bring(self._block_name(name, tail), start, stop, tail.size_bytes, get)

    def put(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Make or replace an object; RecordingLockedError where a claim has ended."""
        if self._claim is not None:
            return self._claim.put(self, name, data)
        self._asked(name, lambda: obstore.put(self._objects, self._key(name), data))

    def put_if(
        self, name: str, data: bytes, version: Version | None, *, writer: str = ""
    ) -> Version | None:
        """Replace one version of an object, or make it; None where another is there instead."""
        known = {} if version is None else version._asdict()
        mode = {key: value for key, value in known.items() if value is not None} or "create"

        def put() -> Version | None:
            given = {"writer": writer} if writer else None
            try:
                result = obstore.put(
                    self._objects,
                    self._key(name),
                    data,
                    mode=mode,  # pyright: ignore[reportArgumentType] (a dict of the two keys)
                    attributes=given,
                    use_multipart=False,
                )
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return None
            return _version(result)

        return self._asked(name, put)

    @contextmanager
    def put_together(self, folder: str) -> Iterator[Put]:
        """A function that puts objects, each of which is there when it returns."""
        yield self.put

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self.version(name) is not None

    def delete(self, name: str) -> bool:
        """Delete an object; returns whether there was one."""
        was_there = self.exists(name)
        self._delete([self._key(name)])
        return was_there

    def entries(self, folder: str = "") -> Iterator[Blob]:
        """All objects whose names begin with that of a folder."""
        skipped = len(self._folder) + 1 if self._folder else 0
        last: str | None = None
        pages: Iterator[Sequence[ObjectMeta]] | None = None

        def ask() -> Sequence[ObjectMeta] | None:
            nonlocal pages
            if pages is None:
                key = self._key(folder) or None
                pages = iter(obstore.list(self._objects, prefix=key, offset=last))
            try:
                return next(pages, None)
            except BaseError:
                pages = None  # it goes on after the last page that came
                raise

        while page := self._asked(folder, ask):
            last = page[-1]["path"]
            for meta in page:
                yield Blob(meta["path"][skipped:], meta["size"])

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly within one, sorted, without hidden ones."""

        def ask() -> list[str]:
            key = self._key(folder) or None
            return list(obstore.list_with_delimiter(self._objects, prefix=key)["common_prefixes"])

        names = (prefix.rstrip("/").rpartition("/")[2] for prefix in self._asked(folder, ask))
        return sorted(name for name in names if not name.startswith("."))

    def make_folder(self, folder: str) -> None:
        """Nothing: folders are parts of names here."""

    def remove_folder(self, folder: str) -> None:
        """Delete all objects of a folder."""
        inner = self.within(folder)
        self._delete([inner._key(blob.name) for blob in inner.entries()])

    def lease(self, folder: str, record: str, *, what: str) -> Lease:
        """Claim a folder: whoever claimed it before can put nothing more."""
        return Claim(self, folder, record, what=what)

    def is_leased(self, folder: str, record: str) -> bool:
        """Whether its record names a writer; it may have been killed since."""
        found = self.look(record)
        return found is not None and writer_of(found.data) is not None

    def sync(self) -> None:
        """Nothing: what was put is safe."""

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._folder, name) if part)

    def _block_name(self, name: str, tail: Tail) -> str:
        return f"{self.location}/{name}\0{tail.version}\0{tail.size_bytes}"

    def _getter(self, name: str, tail: Tail) -> Callable[[int, int], bytes]:
        """Gets bytes of just that version; FileNotFoundError where there is another by now."""

        def get(start: int, stop: int) -> bytes:
            options: GetOptions = {"range": (start, stop)}
            if tail.version:
                options["if_match"] = tail.version
            try:
                result = obstore.get(self._objects, self._key(name), options=options)
                return bytes(result.bytes())
            except PreconditionError:
                raise FileNotFoundError(f"{name} was replaced while it was being read") from None

        return lambda start, stop: self._asked(name, lambda: get(start, stop))

    def _delete(self, keys: list[str]) -> None:
        if keys:
            self._asked("", lambda: obstore.delete(self._objects, keys))

    def _asked(self, name: str, ask: Callable[[], Answer]) -> Answer:
        return answer(self.location, name, ask)


def _all_bytes(result: GetResult, name: str, most_bytes: int) -> bytes:
    if (size := result.meta["size"]) > most_bytes:
        raise OSError(f"{name} has {size} bytes, {most_bytes} are the most")
    return bytes(result.bytes())


def _version(meta: object) -> Version:
    return Version(meta.get("e_tag"), meta.get("version"))  # pyright: ignore
