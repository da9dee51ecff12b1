"""CRC-32C, the one checksum of stores, checkpoints and messages."""

from typing import Any

import google_crc32c
import numpy as np


def crc32c(data: bytes | memoryview | np.ndarray, before: int = 0) -> int:
    """CRC-32C of contiguous memory, in place; `before` is that of what precedes it."""
    # the library takes arrays but no memoryview, and is annotated for bytes only
    array: Any = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    return google_crc32c.extend(before, array)
