"""What a store takes on disk, and how fast it is written and read, each against its baseline.

    python benchmarks/ingest/store.py VIDEO... [--frames 8192] [--rounds 5] [--folder DIR]
                                      [--json FILE]

Each VIDEO is decoded at 128x128, from its start again until there are so many frames. Triplets are
counted as the program trains on them: three indices into the frames of a clip, 32 to a clip of 34
frames, and no copy of a frame; so distinct frames per second are given as well. One process reads;
the files are in the page cache, and each epoch begins with an empty cache of decoded chunks.

    shuffled, in order    an epoch as a server reads it: the plan of `online.clips.plan`, then
                          a StoreCatalog.fetch per clip
    random                clips of 16 frames that begin anywhere
    array[i-2:i+1]        the baseline: one triplet at a time from the plain zarr array
    gzip per frame        the baseline: one HDF5 dataset with gzip per frame, as in the frame
                          archives of the 2021 port; written and not synced
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from store_speed import Rate, epoch, looped, medians, random_clips, write

from ingest.disk.hdf5 import dataset
from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.cache import ChunkCache
from ingest.store.protocols import Store
from ingest.store.records import StoreFormat

FORMATS: list[StoreFormat] = ["zarr", "h5"]
RANDOM_LENGTH = 16
GZIP_FRAMES = 1024
"""Frames of the video for the baseline, which is slow and stores each frame by itself."""


def main() -> None:
    options = _options()
    results = {}
    for video in options.videos:
        frames = looped(video, options.frames)
        with tempfile.TemporaryDirectory(prefix="setcon-store-", dir=options.folder) as folder:
            results[video.name] = _measure(frames, Path(folder), options.rounds)
        _show(video.name, results[video.name], frames)
    if options.json is not None:
        result = {"frames": options.frames, "rounds": options.rounds, "videos": results}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _measure(frames: Frames, folder: Path, rounds: int) -> dict[str, Any]:
    stores: dict[StoreFormat, Store]
    stores = {name: open_store(folder / name, create_format=name) for name in FORMATS}
    archive = folder / "gzip.h5"
    seconds: dict[str, list[float]] = {name: [] for name in [*FORMATS, "gzip"]}
    for _ in range(3):
        for name, store in stores.items():
            if store.recordings():
                store.remove("a")
            seconds[name].append(write(store, "a", frames) / len(frames))
        images = frames.images[:GZIP_FRAMES]
        seconds["gzip"].append(_write_archive(archive, images) / len(images))
    raw = frames.images[0].nbytes
    sizes = {name: store.size_bytes("a") / len(frames) / raw for name, store in stores.items()}
    sizes["gzip"] = archive.stat().st_size / min(GZIP_FRAMES, len(frames)) / raw
    rates = medians(_readings(stores, archive, len(frames)), rounds)
    return {
        "size": sizes,
        "written_per_second": {name: 1 / statistics.median(s) for name, s in seconds.items()},
        "rates": {name: asdict(rate) for name, rate in rates.items()},
    }


def _readings(stores: dict[StoreFormat, Store], archive: Path, count: int) -> dict[str, Any]:
    plain = zarr.open_group(stores["zarr"].location, mode="r")["recordings/a/frames"]
    assert isinstance(plain, zarr.Array)
    gzip_frames = min(GZIP_FRAMES, count)
    readings: dict[str, Callable[[], Rate]] = {
        "array[i-2:i+1]": random_clips(lambda a, b: plain[a:b], count, length=3),
    }
    for name, store in stores.items():
        readings[f"{name} shuffled"] = epoch(store, "a", "shuffled")
        readings[f"{name} in order"] = epoch(store, "a", "stream")
        reader = store.reader("a", cache=ChunkCache(16 << 20))
        readings[f"{name} random"] = random_clips(reader.read, count, length=RANDOM_LENGTH)
    readings["gzip per frame random"] = random_clips(
        lambda a, b: _read_archive(archive, a, b), gzip_frames, length=RANDOM_LENGTH
    )
    return readings


def _write_archive(path: Path, images: np.ndarray) -> float:
    begun = time.perf_counter()
    with h5py.File(path, "w") as file:
        group = file.create_group("train")
        for index, image in enumerate(images):
            group.create_dataset(str(index), data=image, compression="gzip")
    return time.perf_counter() - begun


def _read_archive(path: Path, start: int, stop: int) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return np.stack([dataset(file, f"train/{index}")[:] for index in range(start, stop)])


def _show(name: str, result: dict[str, Any], frames: Frames) -> None:
    size, written, rates = result["size"], result["written_per_second"], result["rates"]
    print(f"\n{name}: {len(frames)} frames, {frames.images.nbytes / 1e6:.0f} MB raw")
    print(f"{'':24}{'of raw':>10}{'of gzip':>10}{'written/s':>12}{'x gzip':>8}")
    for kind in size:
        print(
            f"{kind:24}{size[kind]:10.3f}{size[kind] / size['gzip']:10.3f}"
            f"{written[kind]:12,.0f}{written[kind] / written['gzip']:8.1f}"
        )
    naive = rates["array[i-2:i+1]"]["triplets"]
    naive_cpu = rates["array[i-2:i+1]"]["cpu_triplets"]
    print(
        f"{'':24}{'triplets/s':>12}{'frames/s':>12}{'x naive':>10}{'per CPU s':>12}{'x naive':>10}"
    )
    for kind, rate in rates.items():
        print(
            f"{kind:24}{rate['triplets']:12,.0f}{rate['frames']:12,.0f}"
            f"{rate['triplets'] / naive:10.1f}"
            f"{rate['cpu_triplets']:12,.0f}{rate['cpu_triplets'] / naive_cpu:10.1f}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Size and speed of the stores.")
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the stores lie, for a short time")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
