"""Which freed memory is kept for later, and which is given back to the kernel.

glibc gives every freed block of more than 32 MiB back at once, so each step of a large model takes
its activations from the kernel again: page by page, each zeroed first. For a training loop, which
allocates the same again a moment later, that is wasted;
`benchmarks/training/train_step.py` shows how much.

A server allocates chunks and clips in threads that come and go. Each would have an arena of its
own, with holes that no other uses. In the one arena that they share there are holes as well: a
small block that stays in use takes a piece of a large one that was freed, which the next large one
then just does not fit. `benchmarks/queue/server_memory.py` shows how much.
"""

import ctypes
import sys
from typing import Any

# malloc.h of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_RARE = 4 << 20
_LIMIT = 2**31 - 1  # mallopt takes an int; a block above 2 GiB still goes back


def keep_freed_memory() -> bool:
    """Have this process's malloc keep what is freed; False where there is no glibc.

    The process then stays at its largest size until `give_back_holes`.
    """
    return _set(_M_MMAP_THRESHOLD, _LIMIT) and _set(_M_TRIM_THRESHOLD, _LIMIT)


def keep_memory_together() -> bool:
    """Have this process's threads share one arena, and larger blocks than most clips given back.

    False where there is no glibc.
    """
    return (
        _set(_M_ARENA_MAX, 1)
        and _set(_M_MMAP_THRESHOLD, _RARE)
        and _set(_M_TRIM_THRESHOLD, 16 * _RARE)
    )


def give_back_holes() -> None:
    """Give all memory that is free back to the kernel; nothing without glibc."""
    if (malloc_trim := _of_libc("malloc_trim")) is not None:
        malloc_trim(0)


def _set(what: int, value: int) -> bool:
    mallopt = _of_libc("mallopt")
    return mallopt is not None and bool(mallopt(what, value))


def _of_libc(name: str) -> Any:
    """A function of glibc; None where there is none, as in musl."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
