"""The mark at the end of a chunk: which recording and field it belongs to, and its number.

A checksum says that a chunk is as it was written, not that it is where it was written: one that was
copied over another passes. So each chunk says whose it is, and a reader compares that with the
place it read from.

    Blosc's header │ offsets │ compressed blocks │ mark: 8 bytes of digest, 8 of chunk number
    └──────────────── as long as its header says ─────┘

The mark is inside the Blosc buffer, as zarr decodes the whole file, except its checksum, as one
such buffer. Blosc finds its blocks by their offsets and looks at nothing after the last of them, so
zarr and everything else that reads Blosc reads marked buffers as well.

Only a buffer that Blosc could not compress has no offsets: it is the header and all values, and
must be exactly that long. `marked` turns it into one with a single block, which is as long as its
values, and so by Blosc's rules stored as they are.

All this is part of the format: what it writes may not change.
"""

import hashlib
import struct

import numpy as np
from jaxtyping import UInt8

from ingest.store.formats.codec import BLOCK, COMPRESSOR, HEADER, NOT_SPLIT, STORED
from ingest.store.records import CommitRecord, Index, Pixels

_MARK = struct.Struct("<8sQ")
"""Digest of the recording and the field; number of the chunk."""


def chunk_mark(commit: CommitRecord, field: Pixels | Index, chunk: int) -> bytes:
    """The mark of one chunk: where its source is, and its name, do not matter."""
    return _MARK.pack(_origin(commit, field), chunk)


def _origin(commit: CommitRecord, field: Pixels | Index) -> bytes:
    """Eight bytes for a recording and a field: part of the format, so nothing here may change."""
    source, fps = commit.source, commit.settings.fps
    parts = (
        *(field, source.part, str(source.size_bytes), source.digest),
        *(str(commit.height), str(commit.width), str(commit.chunk_length)),
        *(str(int(commit.has_masks)), str(int(commit.live)), commit.settings.fit),
        "all" if fps is None else float(fps).hex(),
    )
    return hashlib.sha256("\0".join(parts).encode()).digest()[:8]


def marked(buffer: bytes, mark: bytes) -> bytes:
    """A Blosc buffer of the same values, with a mark."""
    *head, flags, type_size, raw_bytes, block_bytes, _ = HEADER.unpack_from(buffer)
    rest = memoryview(buffer)[HEADER.size :]
    if flags & STORED:  # no offsets yet, and so no room for a mark: see above
        flags, block_bytes = flags & COMPRESSOR | NOT_SPLIT, raw_bytes
        rest = b"".join((BLOCK.pack(HEADER.size + BLOCK.size // 2, raw_bytes), rest))
    length = HEADER.size + len(rest) + len(mark)
    header = HEADER.pack(*head, flags, type_size, raw_bytes, block_bytes, length)
    return b"".join((header, rest, mark))


def check_mark(data: UInt8[np.ndarray, " bytes"], expected: bytes) -> None:
    """ValueError where a chunk that has passed its checksum belongs to another place."""
    found = data[-_MARK.size :].tobytes()
    if found == expected:
        return
    origin, chunk = _MARK.unpack(expected)
    if len(found) == _MARK.size and found.startswith(origin):
        raise ValueError(f"it is chunk {_MARK.unpack(found)[1]}, not {chunk}")
    raise ValueError("it is of another recording or field")
