"""Files of a folder that may come from somebody else, opened without leaving it.

open_inside(folder, "recordings/a/commit.json")
    no part of the name may be a symbolic link, and the file must be a plain one: a link could
    lead to any file of this user, and reading a pipe or a device might never end
"""

import errno
import mmap
import os
import stat
from pathlib import Path
from typing import BinaryIO

from ingest.errors import StoreError

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

MAPPED_BYTES = 1 << 20
"""The smallest file that is mapped."""

Buffer = bytes | mmap.mmap


def open_inside(folder: Path, name: str) -> BinaryIO:
    """A plain file below `folder`, to read; `folder` itself may be a link.

    Raises FileNotFoundError: there is none; OSError: it, or a folder on its way, is anything else;
    StoreError: too many files are open, which says nothing of this one.
    """
    try:
        return _open_inside(folder, name)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise StoreError(
            f"{folder}: {name} cannot be opened ({error.strerror}); raise the limit of open files "
            "(ulimit -n)"
        ) from error


def _open_inside(folder: Path, name: str) -> BinaryIO:
    *parents, last = name.split("/")
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            at, before = _opened(parent, _STEP, at, name), at
            os.close(before)
        file = os.fdopen(_opened(last, _FILE, at, name), "rb")
    finally:
        os.close(at)
    return _plain(file, name)


def read_inside(folder: Path, name: str, *, most_bytes: int) -> bytes:
    """All bytes of such a file; OSError also where there are more than `most_bytes`."""
    with open_inside(folder, name) as file:
        data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise _too_large(file, name, most_bytes)
        return data


def map_inside(folder: Path, name: str, *, most_bytes: int) -> Buffer:
    """All bytes of such a file, mapped into memory: they are read when they are looked at.

    A mapped file keeps a descriptor, so a small one is read. Nothing may shorten the file while it
    is mapped: the kernel ends a process that looks at what is gone.
    """
    with open_inside(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise _too_large(file, name, most_bytes)
        if size < MAPPED_BYTES:
            return file.read()
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        return mmap.mmap(file.fileno(), size, flags=flags, prot=mmap.PROT_READ)


def read_plain(path: Path, *, most_bytes: int) -> bytes:
    """All bytes of a plain file, which may be reached by links.

    Raises FileNotFoundError: there is none; OSError: it is a pipe or a device, whose end might
    never come, or has more than `most_bytes`.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    with _plain(file, path.name):
        # asked before reading: room for the most is too much to ask for
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise _too_large(file, path.name, most_bytes)
        return file.read()


def _plain(file: BinaryIO, name: str) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{name} is not a plain file; delete it")
    return file


def _too_large(file: BinaryIO, name: str, most_bytes: int) -> OSError:
    size = os.fstat(file.fileno()).st_size
    return OSError(f"{name} has {size} bytes, {most_bytes} are the most")


def _opened(name: str, flags: int, at: int, whole: str) -> int:
    if name in ("", ".", ".."):
        raise OSError(f"{whole} leads out of its folder")
    try:
        return os.open(name, flags, dir_fd=at)
    except OSError as error:
        # a link where a folder should be is ENOTDIR
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(name, at):
            raise OSError(
                f"{whole}: {name} is a symbolic link, which is not followed; put the file itself "
                "there"
            ) from error
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(f"{whole} is not a plain file; delete it") from error
        raise


def _is_link(name: str, at: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
