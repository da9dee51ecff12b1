"""How pixels are best compressed, and how many frames to a chunk.

    python benchmarks/ingest/chunks.py VIDEO... [--frames 2048] [--lengths 4 8 16 32 64]
                                       [--rounds 3] [--folder DIR] [--json FILE]

The first table compresses chunks of 16 frames of 128x128 in memory, on one thread, and counts its
CPU time. `whole` is one Blosc block per chunk, `auto` is what Blosc chooses; `delta` stores each
frame but the first of a chunk as its difference from the one before, which neither a plain
`zarr.open` nor `h5py` would undo. The second table writes and reads zarr stores with chunks of
other lengths, as benchmarks/ingest/store.py does.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from jaxtyping import UInt8
from store_speed import SIZE, epoch, looped, medians, random_clips, write

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.cache import ChunkCache
from ingest.store.formats.codec import PixelCodec, decode_pixels

CHUNK = 16
SAMPLE_CHUNKS, SAMPLE_STEP = 8, 7 * CHUNK
WHOLE, AUTO = 1 << 20, 0
LENGTHS = [4, 8, 16, 32, 64]
LARGEST_CHUNK = LENGTHS[-1] * SIZE * SIZE * 3


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compress a chunk."""

    codec: PixelCodec
    delta: bool = False

    @property
    def label(self) -> str:
        """What the table calls it."""
        codec = self.codec
        block = "whole" if codec.block_bytes else "auto"
        return f"{'delta ' * self.delta}{codec.name} {codec.level} {codec.shuffle} {block}"


VARIANTS = [
    Variant(codec=PixelCodec(name="lz4", level=5, shuffle="noshuffle", block_bytes=AUTO)),
    Variant(codec=PixelCodec(name="lz4", level=5, block_bytes=AUTO)),
    Variant(codec=PixelCodec(name="lz4", level=9, block_bytes=WHOLE)),
    Variant(codec=PixelCodec(level=1, shuffle="noshuffle", block_bytes=WHOLE)),
    Variant(codec=PixelCodec(level=1, block_bytes=AUTO)),
    Variant(codec=PixelCodec(level=3, block_bytes=AUTO)),  # the default before
    Variant(codec=PixelCodec(level=5, block_bytes=AUTO)),
    Variant(codec=PixelCodec(level=1, block_bytes=WHOLE)),  # the default
    Variant(codec=PixelCodec(level=3, block_bytes=WHOLE)),
    Variant(codec=PixelCodec(level=5, block_bytes=WHOLE)),
    Variant(codec=PixelCodec(name="lz4", level=5, block_bytes=WHOLE), delta=True),
    Variant(codec=PixelCodec(level=1, block_bytes=WHOLE), delta=True),
]


def main() -> None:
    options = _options()
    results = {}
    for video in options.videos:
        frames = looped(video, options.frames)
        codecs = [_codec_row(variant, frames, options.rounds) for variant in VARIANTS]
        _show(f"{video.name}, one thread", codecs)
        lengths = [_length_row(n, frames, options.folder, options.rounds) for n in options.lengths]
        if lengths:
            _show(f"{video.name}, zarr", lengths)
        results[video.name] = {"codecs": codecs, "lengths": lengths}
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def _codec_row(variant: Variant, frames: Frames, rounds: int) -> dict[str, Any]:
    starts = range(0, len(frames) - CHUNK + 1, SAMPLE_STEP)[:SAMPLE_CHUNKS]
    chunks = [frames.images[start : start + CHUNK] for start in starts]
    raw_bytes = sum(chunk.nbytes for chunk in chunks)
    encoded = [_encode(variant, chunk) for chunk in chunks]
    decoded = [_decode(variant, data, chunks[0].shape) for data in encoded]
    if not all(map(np.array_equal, decoded, chunks)):
        raise ValueError(f"{variant.label} does not give back what it was given")
    write = _cpu_seconds(lambda: [_encode(variant, chunk) for chunk in chunks], rounds)
    read = _cpu_seconds(lambda: [_decode(variant, d, chunks[0].shape) for d in encoded], rounds)
    return {
        "": variant.label,
        "of raw": sum(map(len, encoded)) / raw_bytes,
        "write MB/s": raw_bytes / write / 1e6,
        "read MB/s": raw_bytes / read / 1e6,
    }


def _encode(variant: Variant, chunk: UInt8[np.ndarray, "n h w 3"]) -> bytes:
    if variant.delta:
        chunk = np.concatenate([chunk[:1], chunk[1:] - chunk[:-1]])  # modulo 256
    return variant.codec.encode(chunk)


def _decode(variant: Variant, data: bytes, shape: tuple[int, ...]) -> UInt8[np.ndarray, "n h w 3"]:
    chunk = decode_pixels(np.frombuffer(data, np.uint8), shape)
    if variant.delta:
        for before, frame in pairwise(chunk):
            np.add(frame, before, out=frame)
    return chunk


def _cpu_seconds(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        begun = time.thread_time()
        work()
        taken.append(time.thread_time() - begun)
    return statistics.median(taken)


def _length_row(length: int, frames: Frames, folder: Path | None, rounds: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="setcon-chunks-", dir=folder) as path,
        patch("ingest.store.formats.codec.CHUNK_BYTES", LARGEST_CHUNK),
    ):
        store = open_store(Path(path) / "store", create_format="zarr")
        seconds = []
        for _ in range(rounds):
            if store.recordings():
                store.remove("a")
            seconds.append(write(store, "a", frames, longest=length))
        reader = store.reader("a", cache=ChunkCache(8 << 20))
        rates = medians(
            {
                "shuffled": epoch(store, "a", "shuffled"),
                "in order": epoch(store, "a", "stream"),
                "random": random_clips(reader.read, len(frames), length=CHUNK),
            },
            rounds,
        )
        return {
            "": f"{length} frames a chunk",
            "of raw": store.size_bytes("a") / frames.images.nbytes,
            "written/s": len(frames) / statistics.median(seconds),
            **{f"{name}/CPU s": rate.cpu_triplets for name, rate in rates.items()},
        }


def _show(title: str, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])[1:]
    print(f"\n{title:34}" + "".join(f"{column:>13}" for column in columns))
    for row in rows:
        cells = [f"{row[c]:13.3f}" if c == "of raw" else f"{row[c]:13,.0f}" for c in columns]
        print(f"{row['']:34}" + "".join(cells))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Codecs and lengths of chunks.")
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS, help="frames a chunk")
    parser.add_argument("--folder", type=Path, help="where the stores lie, for a short time")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
