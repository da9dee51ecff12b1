"""Keep freed memory for the next step instead of giving it back to the kernel.

glibc gives every freed block of more than 32 MiB back at once, so each step of a large model takes
its activations from the kernel again: page by page, each zeroed first. For a training loop, which
allocates the same again a moment later, that is wasted;
`benchmarks/training/train_step.py` shows how much.
"""

import ctypes
import sys

# malloc.h of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LIMIT = 2**31 - 1  # mallopt takes an int; a block above 2 GiB still goes back


def keep_freed_memory() -> bool:
    """Have this process's malloc keep what is freed; False where there is no glibc.

    The process then stays at its largest size until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LIMIT) and mallopt(_M_TRIM_THRESHOLD, _LIMIT))
