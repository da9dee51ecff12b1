"""Blocks of objects that were read, kept as files of this machine for the next time.

    object   ├── block 0 ──┼── block 1 ──┼── block 2 ─┤     one request each, and one file

A block's name says of which version of which object it is, so nothing in a file ever gets old. A
file may be damaged, deleted by others or cut off by a power cut: whoever reads it checks the
checksum of the chunk, and asks for `fresh` bytes where that fails. Where nothing can be written, or
nothing may be kept, exactly the bytes that are asked for are read, each time.
"""

import errno
import hashlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from ingest.disk.durable import PARTIAL
from ingest.errors import NotAStoreError

log = logging.getLogger(__name__)

Get = Callable[[int, int], bytes]
"""Reads bytes start..stop of one version of an object from where it is."""

BLOCK_BYTES = 8 << 20
"""Large enough that latency hardly counts; what clips that are near each other share."""
FOLDER_VARIABLE, SIZE_VARIABLE = "SETCON_CACHE", "SETCON_CACHE_GB"
DEFAULT_GB = 10.0
_SUFFIX = ".block"
_LOOKS = 16
"""How often, while as much as fits is written, a process looks at what is there."""


class Blocks:
    """Blocks of any objects, in one folder that several processes share; for several threads."""

    def __init__(self, folder: Path, max_bytes: int, *, block_bytes: int = BLOCK_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._block_bytes = block_bytes
        self._unseen_bytes = max_bytes
        """Written by this process since it looked at what is there; so much at first, to look."""
        self._coming: dict[Path, Future[bytes]] = {}
        self._lock = threading.Lock()
        self._works = max_bytes >= block_bytes
        if self._works and folder.is_dir():
            try:
                _check_mine(folder)
            except OSError as error:
                self._give_up(error)

    @classmethod
    def of_this_user(cls, store: str) -> "Blocks":
        """Those in the user's cache, or where two environment variables say."""
        text = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_GB)
        try:
            size = int(float(text) * 1e9)
        except (ValueError, OverflowError):
            size = -1
        if size < 0:
            raise NotAStoreError(
                f"{store}: {SIZE_VARIABLE}={text!r} is not a number of gigabytes; use for example "
                f"{DEFAULT_GB:g}, or 0 to keep nothing"
            )
        try:
            return cls(_folder() if size else Path(os.devnull), size)
        except RuntimeError as error:
            raise NotAStoreError(
                f"{store}: no folder for what is kept of it ({error}); name one with "
                f"{FOLDER_VARIABLE}, or set {SIZE_VARIABLE}=0 to keep nothing"
            ) from error

    def read(
        self, name: str, start: int, stop: int, size_bytes: int, get: Get, fresh: bool = False
    ) -> bytes:
        """Bytes start..stop of the object of `size_bytes` that `name` stands for."""
        if fresh or not self._works:
            for _, path in self._blocks(name, start, stop):
                with suppress(OSError):
                    path.unlink()
            return get(start, stop)
        parts = []
        for first, path in self._blocks(name, start, stop):
            begin, end = max(start, first), min(stop, first + self._block_bytes)
            parts.append(self._part(path, first, begin - first, end - first, size_bytes, get))
        return b"".join(parts)

    def bring(self, name: str, start: int, stop: int, size_bytes: int, get: Get) -> None:
        """Have the blocks of bytes start..stop here, where anything can be kept."""
        for first, path in self._blocks(name, start, stop):
            if self._works and not path.exists():
                self._come(path, first, size_bytes, get)

    def _blocks(self, name: str, start: int, stop: int) -> Iterator[tuple[int, Path]]:
        """Where the blocks begin that have a part of start..stop, and their files."""
        for first in range(start - start % self._block_bytes, stop, self._block_bytes):
            key = hashlib.sha256(f"{name}\0{self._block_bytes}\0{first}".encode()).hexdigest()
            yield first, self._folder / f"{key[:40]}{_SUFFIX}"

    def _part(
        self, path: Path, first: int, begin: int, end: int, size_bytes: int, get: Get
    ) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(begin)
                part = file.read(end - begin)
            if len(part) == end - begin:
                os.utime(path)  # by which the block that was unused for longest is known
                return part
        except OSError:
            pass
        return self._come(path, first, size_bytes, get)[begin:end]

    def _come(self, path: Path, first: int, size_bytes: int, get: Get) -> bytes:
        """A block from where it is, once for all threads that wait for it."""
        with self._lock:
            coming = self._coming.get(path)
            mine: Future[bytes] = Future()
            self._coming.setdefault(path, mine)
        if coming is not None:
            return coming.result()
        try:
            data = get(first, min(first + self._block_bytes, size_bytes))
            self._keep(path, data)
            mine.set_result(data)
            return data
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._coming[path]

    def _keep(self, path: Path, data: bytes) -> None:
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_mine(self._folder)
            self._make_room(len(data))
            with open(partial, "xb", opener=_private) as file:
                file.write(data)
            with suppress(FileNotFoundError):  # somebody made room, and this was the oldest
                partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._works = False
        log.warning(
            "%s: nothing can be kept (%s); reading on without, which takes longer; free some "
            "space, or name another folder with %s",
            self._folder,
            error.strerror or error,
            FOLDER_VARIABLE,
        )

    def _make_room(self, more: int) -> None:
        """Delete the blocks that were unused for longest, those of other processes too."""
        with self._lock:
            self._unseen_bytes += more
            if self._unseen_bytes < self._max_bytes // _LOOKS:
                return
            self._unseen_bytes = 0
        kept: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process has just deleted it
                if path.suffix in (_SUFFIX, PARTIAL):
                    found = path.stat()
                    kept.append((found.st_mtime, found.st_size, path))
        room = self._max_bytes - self._max_bytes // _LOOKS - more
        for _, size, path in sorted(kept, reverse=True):
            room -= size
            if room < 0:
                path.unlink(missing_ok=True)


def _folder() -> Path:
    """Where blocks are kept; RuntimeError where that needs a home folder and there is none."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "setcon"


def _check_mine(folder: Path) -> None:
    """PermissionError where somebody else could read what is kept, or put it there."""
    if folder.stat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user")


def _private(path: str, flags: int) -> int:
    """Open a file that only this user may read."""
    return os.open(path, flags, 0o600)
