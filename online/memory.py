"""Keep freed memory: glibc otherwise hands every large tensor back and faults it in again.

A training step frees and allocates the same tens of megabytes over and over. By default each such
block is mapped, zeroed page by page, and unmapped: a quarter of a small model's step.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_THRESHOLD = 32 << 20  # glibc refuses more on 64-bit machines
_NEVER_TRIM = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Tell this process's allocator to reuse blocks up to 32 MiB; False where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)) and bool(
        mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
    )
