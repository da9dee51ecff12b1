"""Which place a chunk is of, told by the chunk itself: intact is not enough where it is another's.

    Blosc's header │ offsets │ compressed blocks │ mark
    └──────────────── as long as its header says ─────┘

Blosc finds its blocks by their offsets and looks at nothing behind them, so whatever reads Blosc
reads marked buffers as well.
"""

import hashlib
import struct

import numpy as np
from jaxtyping import UInt8

from ingest.store.codec import HEADER
from ingest.store.records import CommitRecord, Index, Pixels

_MARK = struct.Struct("<8sQ")
"""Digest of the recording and the field, number of the chunk."""
_BLOCK = struct.Struct("<2i")
"""Where the only block of a buffer lies, and its length."""
_STORED, _NOT_SPLIT, _COMPRESSOR = 0x02, 0x10, 0xE0  # bits of Blosc's flags


def chunk_mark(commit: CommitRecord, field: Pixels | Index, chunk: int) -> bytes:
    """The mark of one chunk: where the same source lies, and what it is called, does not matter."""
    return _MARK.pack(_origin(commit, field), chunk)


def _origin(commit: CommitRecord, field: Pixels | Index) -> bytes:
    """Eight bytes for a recording and a field: part of the format, so nothing here may change."""
    source, fps = commit.source, commit.settings.fps
    told = (
        *(field, source.part, str(source.size_bytes), source.digest),
        *(str(commit.height), str(commit.width), str(commit.chunk_length)),
        *(str(int(commit.has_masks)), str(int(commit.live)), commit.settings.fit),
        "all" if fps is None else float(fps).hex(),
    )
    return hashlib.sha256("\0".join(told).encode()).digest()[:8]


def marked(buffer: bytes, mark: bytes) -> bytes:
    """A Blosc buffer of the same values, with a mark."""
    *head, flags, type_size, raw_bytes, block_bytes, _ = HEADER.unpack_from(buffer)
    rest = memoryview(buffer)[HEADER.size :]
    if flags & _STORED:  # such a buffer is all values; as a block that does not shrink it has room
        flags, block_bytes = flags & _COMPRESSOR | _NOT_SPLIT, raw_bytes
        rest = b"".join((_BLOCK.pack(HEADER.size + _BLOCK.size // 2, raw_bytes), rest))
    length = HEADER.size + len(rest) + len(mark)
    header = HEADER.pack(*head, flags, type_size, raw_bytes, block_bytes, length)
    return b"".join((header, rest, mark))


def check_mark(data: UInt8[np.ndarray, " bytes"], expected: bytes) -> None:
    """ValueError where a chunk that has passed its checksum is of another place."""
    found = data[-_MARK.size :].tobytes()
    if found == expected:
        return
    origin, chunk = _MARK.unpack(expected)
    if len(found) == _MARK.size and found.startswith(origin):
        raise ValueError(f"it is chunk {_MARK.unpack(found)[1]}, not {chunk}")
    raise ValueError("it is of another recording or field")
