"""How pixels are compressed, in both formats: every chunk is one Blosc buffer.

zarr keeps times and gaps in such buffers too. A buffer says itself how it was made, so chunks of
all settings are decoded alike.
"""

import math
import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue] (compiled)

from ingest.store.records import Codec, CommitRecord, Pixels

Shuffle = Literal["noshuffle", "shuffle", "bitshuffle"]

_SHUFFLES: tuple[Shuffle, ...] = ("noshuffle", "shuffle", "bitshuffle")  # as Blosc counts them
CHUNK_BYTES = 1 << 20
"""Raw size a chunk should have: little to read for one clip, enough to compress."""
MAPPED_CHUNK_BYTES = 4 << 20
"""The same of one that is mapped: nothing has to be decoded, and more clips lie in one chunk."""

HEADER = struct.Struct("<4B3I")
"""Version of the format and of the compressor, flags, type size, bytes raw, per block, stored."""
BLOCK = struct.Struct("<2i")
"""Offset of a buffer's only block; its length, which is what Blosc keeps in front of each."""
STORED, SHUFFLED, NOT_SPLIT, COMPRESSOR = 0x02, 0x05, 0x10, 0xE0
"""Bits of Blosc's flags: all values as they are, without offsets; either shuffle; and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelCodec:
    """Settings of the compressor; docs/measurements.md compares them."""

    name: Literal["zstd", "lz4"] = "zstd"
    level: int = 1
    shuffle: Shuffle = "bitshuffle"
    """Bits of equal weight side by side: the noise of the low ones no longer hides the high."""
    block_bytes: int = 1 << 20
    """What is shuffled and compressed at once; 0 lets Blosc choose. A whole chunk comes out smaller
    than Blosc's own blocks at a higher level, and is several times faster to write."""

    @classmethod
    def of(cls, commit: CommitRecord, field: Pixels) -> "PixelCodec":
        """That of a recording's frames; masks are small, and compressed well everywhere."""
        return _SETTINGS[commit.codec if field == "frames" else "zstd"]

    def encode(self, pixels: UInt8[np.ndarray, "n h w *c"]) -> bytes:
        """One Blosc buffer."""
        shuffle = _SHUFFLES.index(self.shuffle)
        flat = np.ascontiguousarray(pixels).reshape(-1)
        return blosc.compress(flat, self.name.encode(), self.level, shuffle, self.block_bytes, 1)


_SETTINGS: dict[Codec, PixelCodec] = {
    "zstd": PixelCodec(),
    "lz4": PixelCodec(name="lz4", level=5, shuffle="noshuffle"),
    "none": PixelCodec(name="lz4", level=0, shuffle="noshuffle"),
}


def decode_pixels(
    data: UInt8[np.ndarray, " bytes"],
    shape: tuple[int, ...],
    out: UInt8[np.ndarray, "n h w *c"] | None = None,
) -> UInt8[np.ndarray, "n h w *c"]:
    """Undo `PixelCodec.encode`, into `out` or a new array, or where they are stored as they are.

    Raises ValueError for a buffer that does not give pixels of `shape`; it has passed its checksum.
    """
    _check_header(data, shape, np.dtype(np.uint8))
    if out is None and (as_they_are := _stored_values(data)) is not None:
        return as_they_are.reshape(shape)
    pixels = _room(shape, out)
    blosc.decompress(data, pixels)
    return pixels


def _stored_values(data: UInt8[np.ndarray, " bytes"]) -> UInt8[np.ndarray, " raw"] | None:
    """All values of a Blosc buffer, where they follow each other in it; None where they do not."""
    start = HEADER.size
    _, _, flags, _, raw_bytes, block_bytes, _ = HEADER.unpack(data[:start].tobytes())
    if not flags & STORED:
        if flags & SHUFFLED or block_bytes < raw_bytes or len(data) < start + BLOCK.size:
            return None
        offset, length = BLOCK.unpack(data[start : start + BLOCK.size].tobytes())
        if (offset, length) != (start + BLOCK.size // 2, raw_bytes):
            return None
        start += BLOCK.size
    return data[start : start + raw_bytes] if len(data) >= start + raw_bytes else None


def encode_values(values: Shaped[np.ndarray, " count"]) -> bytes:
    """One Blosc buffer of values of any type."""
    return blosc.compress(values, b"zstd", 1, _SHUFFLES.index("shuffle"), 0, 8)


def decode_values(
    data: UInt8[np.ndarray, " bytes"], count: int, dtype: np.dtype
) -> Shaped[np.ndarray, " count"]:
    """The `count` values of any type in one Blosc buffer; ValueError for another buffer."""
    _check_header(data, (count,), dtype)
    values = np.empty(count, dtype)
    blosc.decompress(data, values)
    return values


def stored_bytes(raw_bytes: int) -> int:
    """The most that a chunk takes on disk: Blosc stores what it cannot make smaller."""
    return raw_bytes + raw_bytes // 64 + 4096


def padded(values: Shaped[np.ndarray, "n ..."], length: int) -> Shaped[np.ndarray, "length ..."]:
    """Pixels or other values, with zeros after them where a chunk of `length` is not full."""
    missing = [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values, missing) if len(values) < length else values


def copy_pixels(
    data: UInt8[np.ndarray, " bytes"],
    shape: tuple[int, ...],
    out: UInt8[np.ndarray, "n h w *c"] | None = None,
) -> UInt8[np.ndarray, "n h w *c"]:
    """The same for pixels that were stored as they are."""
    pixels = _room(shape, out)
    pixels[:] = data.reshape(shape)
    return pixels


def _check_header(
    data: UInt8[np.ndarray, " bytes"], shape: tuple[int, ...], dtype: np.dtype
) -> None:
    """ValueError where a buffer does not give `shape`: Blosc would write as much as it says."""
    if len(data) < HEADER.size:
        raise ValueError(f"{len(data)} bytes are not a Blosc buffer")
    *_, raw_bytes, _, stored_bytes = HEADER.unpack(data[: HEADER.size].tobytes())
    if stored_bytes != len(data) or raw_bytes != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"a Blosc buffer of {stored_bytes} bytes for {raw_bytes}, found {len(data)} bytes "
            f"for {dtype} of {shape = }"
        )


def _room(
    shape: tuple[int, ...], out: UInt8[np.ndarray, "n h w *c"] | None
) -> UInt8[np.ndarray, "n h w *c"]:
    if out is not None and out.shape != shape:
        raise ValueError(f"{shape = }, asked for {out.shape}")
    return np.empty(shape, np.uint8) if out is None else out


def chunk_length(
    height: int, width: int, longest: int | None, chunk_bytes: int = CHUNK_BYTES
) -> int:
    """Frames per chunk: a power of two of about `chunk_bytes`, 1 to 64, and at most `longest`."""
    fitting = max(1, min(64, chunk_bytes // (height * width * 3)))
    power = 1 << (fitting.bit_length() - 1)
    return power if longest is None else max(1, min(power, longest))
