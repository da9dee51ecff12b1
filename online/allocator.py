"""Which freed memory is kept for later, and which is given back to the kernel.

glibc gives every freed block of more than 32 MiB back at once, so each step of a large model takes
its activations from the kernel again: page by page, each zeroed first. For a training loop, which
allocates the same again a moment later, that is wasted;
`benchmarks/training/train_step.py` shows how much.

A server allocates chunks and clips in threads that come and go. Each would have an arena of its
own, with holes that no other uses.
"""

import ctypes
import sys

# malloc.h of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_RARE = 4 << 20
_LIMIT = 2**31 - 1  # mallopt takes an int; a block above 2 GiB still goes back


def keep_freed_memory() -> bool:
    """Have this process's malloc keep what is freed; False where there is no glibc.

    The process then stays at its largest size until it ends.
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


def _set(what: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(what, value))
