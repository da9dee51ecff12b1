"""Shuffled clips from this store, next to what else serves video or samples to a trainer.

    python benchmarks/ingest/peers.py VIDEO [--clips 128] [--epochs 3] [--rounds 5] [--seconds 2]
                                      [--only NAME]... [--folder DIR] [--json FILE]

VIDEO is scaled to 128x128 and written as H.264; all others hold the frames that this mp4 gives. A
clip is 34 frames, and the clips come in the order of this store's plan. Each way is measured for
`--seconds` or until its epochs end, once per round, all in turns; figures are medians.

in process    clips are read by the process that uses them
process       a worker reads them: `torch.utils.data.DataLoader` with one worker, or `setcon serve`
              and its client, which is the whole path to a trainer

A clip counts when one byte of each of its pages was looked at: what is mapped and never read would
cost nothing. CPU is that of all processes. The files are in the page cache. Where a first clip is
not the footage, the script ends.

    store zstd, lz4, none     this store with each `--codec`
    torchcodec, decord        seek in the mp4 (`seek_mode="exact"`)
    LitData, MosaicML         a raw clip is a sample, taken by its number
    WebDataset                a tar of raw clips in the order of the first epoch, read through
    gzip HDF5                 one dataset per frame, as in the archives of the 2021 port
    memmap                    one file of raw frames: the ceiling, without any check

What cannot be imported is left out, with the reason. No extra has the peers: pip install torchcodec
litdata mosaicml-streaming webdataset, best into an environment of their own. LeRobot's dataset
class is not among them: 0.4.4, the newest release for Python 3.11, asks for a torch below 2.11; it
reads mp4 by torchcodec.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from store_speed import SIZE, WANT, looped
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ingest.disk.hdf5 import dataset
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.store.records import Codec, RecordSettings
from ingest.video.mp4_writer import write_mp4
from online.clips.catalog import StoreCatalog
from online.clips.clip import ClipSpec
from online.clips.cursor import Cursor
from online.clips.plan import extents_now, make_plan
from online.clips.request import ClipRequest
from online.queue.client import Client
from online.queue.server_process import ServerProcess
from online.queue.stream import ServeConfig

FPS = 30
WARM_CLIPS = 16
PAGE = 4096
FAR = 8.0
"""Mean difference of a decoder's frames from the footage, in levels, at most."""
CODECS: tuple[Codec, ...] = ("zstd", "lz4", "none")
MODULES = {
    "torchcodec": "torchcodec.decoders",
    "decord": "decord",
    "LitData": "litdata",
    "MosaicML": "streaming",
    "WebDataset": "webdataset",
}

Read = Callable[[int], Any]
"""From the number of a clip, in time order, to its frames."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast clips come."""

    frames: float
    """Per second."""
    cpu_milliseconds: float
    """Of all processes, for a clip."""


@dataclass(frozen=True, kw_only=True)
class Footage:
    """What all have to give."""

    folder: Path
    video: Path
    images: np.ndarray
    starts: list[int]
    """Of the clips, in time order."""
    order: list[int]
    """Numbers of the clips, epoch after epoch."""
    epochs: int

    @property
    def length(self) -> int:
        """Frames of a clip."""
        return WANT.clip.frames

    def clip(self, number: int) -> np.ndarray:
        """What a clip must hold."""
        return self.images[self.starts[number] :][: self.length]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to keep the clips."""

    path: Path
    """What it takes on disk."""
    open: Callable[[], Read] | None = None
    stream: Callable[[], Iterable[Any]] | None = None
    """Where clips come in a fixed order."""
    serve: Path | None = None
    """A store that is served, in place of a DataLoader's worker."""
    is_exact: bool = True


def footage(source: Path, folder: Path, clips: int, epochs: int) -> Footage:
    """An mp4 of so many clips, a store of each codec, and their frames and order."""
    length = clips * WANT.clip.clip_length + WANT.clip.overlap
    video = folder / "footage.mp4"
    with write_mp4(
        video,
        height=SIZE,
        width=SIZE,
        length=length,
        fps=FPS,
        ticks_per_second=FPS,
        has_masks=False,
        playable=True,
    ) as write:
        write(looped(source, length))
    for codec in CODECS:
        (made,) = ingest_sources(
            [str(video)], folder / codec, RecordSettings(size=SIZE), codec=codec
        )
        if made.error is not None:
            raise made.error
    with closing(StoreCatalog(open_store(folder / "none"), holdout=0.0)) as catalog:
        images = catalog.fetch("footage", 0, length).images
        specs = list(planned(catalog, epochs))
    starts = sorted({spec.start for spec in specs})
    numbers = {start: number for number, start in enumerate(starts)}
    order = [numbers[spec.start] for spec in specs]
    return Footage(
        folder=folder, video=video, images=images, starts=starts, order=order, epochs=epochs
    )


def planned(catalog: StoreCatalog, epochs: int) -> Iterator[ClipSpec]:
    """The clips of some epochs, as a server sends them."""
    extents = extents_now(catalog, "*", follow=False)
    for epoch in range(epochs):
        cursor = Cursor(epoch=epoch, extents=extents)
        yield from make_plan(catalog, WANT, order="shuffled", cursor=cursor).clips


def of_store(codec: Codec, of: Footage) -> Way:
    def open_() -> Read:
        catalog = StoreCatalog(open_store(of.folder / codec), holdout=0.0)
        return lambda number: catalog.fetch("footage", of.starts[number], of.length).images

    return Way(path=of.folder / codec, open=open_, serve=of.folder / codec)


def of_torchcodec(of: Footage) -> Way:
    def open_() -> Read:
        decoders = import_module("torchcodec.decoders")
        decoder = decoders.VideoDecoder(of.video, seek_mode="exact", dimension_order="NHWC")

        def read(number: int) -> np.ndarray:
            start = of.starts[number]
            return decoder.get_frames_in_range(start, start + of.length).data.numpy()

        return read

    return Way(path=of.video, open=open_, is_exact=False)


def of_decord(of: Footage) -> Way:
    def open_() -> Read:
        reader = import_module("decord").VideoReader(str(of.video))

        def read(number: int) -> np.ndarray:
            start = of.starts[number]
            return reader.get_batch(list(range(start, start + of.length))).asnumpy()

        return read

    return Way(path=of.video, open=open_, is_exact=False)


def of_litdata(of: Footage) -> Way:
    path = of.folder / "litdata"
    path.mkdir()
    cache = import_module("litdata.streaming.cache").Cache(str(path), chunk_bytes="64MB")
    for number in range(len(of.starts)):
        cache[number] = {"frames": torch.from_numpy(of.clip(number).copy())}
    cache.done()
    cache.merge()

    def open_() -> Read:
        samples = import_module("litdata").StreamingDataset(str(path))
        return lambda number: samples[number]["frames"].numpy()

    return Way(path=path, open=open_)


def of_mosaicml(of: Footage) -> Way:
    streaming = import_module("streaming")
    path = of.folder / "mosaicml"
    column = f"ndarray:uint8:{of.length},{SIZE},{SIZE},3"
    with streaming.MDSWriter(out=str(path), columns={"frames": column}) as writer:
        for number in range(len(of.starts)):
            writer.write({"frames": of.clip(number)})

    def open_() -> Read:
        samples = streaming.StreamingDataset(local=str(path), batch_size=1, shuffle=False)
        return lambda number: samples[number]["frames"]

    return Way(path=path, open=open_)


def of_webdataset(of: Footage) -> Way:
    webdataset = import_module("webdataset")
    path = of.folder / "clips.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in of.order[: len(of.starts)]:
            writer.write({"__key__": f"{number:06d}", "frames": of.clip(number).tobytes()})

    def stream() -> Iterator[np.ndarray]:
        for _ in range(of.epochs):
            samples = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
            for sample in samples:
                yield np.frombuffer(sample["frames"], np.uint8).reshape(of.length, SIZE, SIZE, 3)

    return Way(path=path, stream=stream)


def of_gzip(of: Footage) -> Way:
    path = of.folder / "gzip.h5"
    with h5py.File(path, "w") as file:
        for index, image in enumerate(of.images):
            file.create_dataset(f"train/{index}", data=image, compression="gzip")

    def open_() -> Read:
        file = h5py.File(path)

        def read(number: int) -> np.ndarray:
            frames = range(of.starts[number], of.starts[number] + of.length)
            return np.stack([dataset(file, f"train/{index}")[:] for index in frames])

        return read

    return Way(path=path, open=open_)


def of_memmap(of: Footage) -> Way:
    path = of.folder / "frames.npy"
    np.save(path, of.images)

    def open_() -> Read:
        frames = np.load(path, mmap_mode="r")
        return lambda number: frames[of.starts[number] :][: of.length]

    return Way(path=path, open=open_)


WAYS: dict[str, Callable[[Footage], Way]] = {
    **{f"store {codec}": partial(of_store, codec) for codec in CODECS},
    "torchcodec": of_torchcodec,
    "decord": of_decord,
    "LitData": of_litdata,
    "MosaicML": of_mosaicml,
    "WebDataset": of_webdataset,
    "gzip HDF5": of_gzip,
    "memmap": of_memmap,
}


class Numbered(Dataset[Any]):
    """Clips by number, for a worker, which opens what they are in."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._read: Read | None = None

    def __getitem__(self, number: int) -> Any:
        assert self._way.open is not None
        self._read = self._read or self._way.open()
        return self._read(number)


class Streamed(IterableDataset[Any]):
    """Clips in the order in which they come, for a worker."""

    def __init__(self, way: Way) -> None:
        self._way = way

    def __iter__(self) -> Iterator[Any]:
        assert self._way.stream is not None
        return iter(self._way.stream())


@contextmanager
def in_process(way: Way, of: Footage) -> Iterator[tuple[Iterable[Any], list[int]]]:
    """Clips that this process reads itself."""
    if way.stream is not None:
        yield way.stream(), []
        return
    assert way.open is not None
    yield map(way.open(), of.order), []


@contextmanager
def across(way: Way, of: Footage) -> Iterator[tuple[Iterable[Any], list[int]]]:
    """Clips that another process reads, and what processes these are."""
    if way.serve is not None:
        want = ClipRequest(clip=WANT.clip, order="shuffled", max_epochs=of.epochs)
        with (
            ServerProcess(way.serve, ServeConfig(holdout=0.0)) as server,
            Client(server.address) as client,
        ):
            client.open(want)
            assert server.pid is not None
            yield _received(client), [server.pid]
        return
    kwargs: dict[str, Any] = {"batch_size": None, "num_workers": 1}
    if way.stream is not None:
        clips = iter(DataLoader(Streamed(way), **kwargs))
    else:
        clips = iter(DataLoader(Numbered(way), sampler=of.order, **kwargs))
    yield clips, [child.pid for child in multiprocessing.active_children() if child.pid]


def _received(client: Client) -> Iterator[np.ndarray]:
    while (delivery := client.next_clip(60.0)) is not None:
        yield delivery.clip.frames.images


def measure(clips: Iterable[Any], total: int, others: Sequence[int], seconds: float) -> Rate:
    """Take clips for a while, after some that do not count.

    Not the last of the `total`: workers end with it, and with them the record of their CPU.
    """
    clips = iter(clips)
    for clip in islice(clips, WARM_CLIPS):
        _touch(clip)
    count, begun, cpu = 0, time.perf_counter(), _cpu_seconds(others)
    for clip in islice(clips, total - 1 - WARM_CLIPS):
        _touch(clip)
        count += 1
        if time.perf_counter() - begun > seconds:
            break
    passed, used = time.perf_counter() - begun, _cpu_seconds(others) - cpu
    return Rate(frames=count * WANT.clip.frames / passed, cpu_milliseconds=1e3 * used / count)


def _touch(clip: Any) -> None:
    np.asarray(clip).reshape(-1)[::PAGE].max()


def _cpu_seconds(others: Sequence[int]) -> float:
    """Of this process and of some that are still there."""
    ticks = 0
    for pid in others:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def check(name: str, way: Way, of: Footage) -> None:
    """End the script where the first clip is not the footage."""
    with in_process(way, of) as (clips, _):
        found = np.asarray(next(iter(clips)))
    expected = of.clip(of.order[0])
    is_same = found.shape == expected.shape and (
        np.array_equal(found, expected)
        if way.is_exact
        else np.abs(found.astype(np.int16) - expected).mean() < FAR
    )
    if not is_same:
        sys.exit(f"{name}: its first clip is not the footage")


def disk_bytes(path: Path) -> int:
    """Of a file, or of all in a folder."""
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    return sum(found.stat().st_size for found in files)


def main() -> None:
    options = _options()
    if options.clips * options.epochs < 2 * WARM_CLIPS:
        sys.exit(f"--clips times --epochs must be {2 * WARM_CLIPS} or more")
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    chosen = options.only or list(WAYS)
    missing = {name: fault for name in chosen if (fault := _fault(name))}
    for name, fault in missing.items():
        print(f"left out: {name} ({fault})")
    with tempfile.TemporaryDirectory(prefix="peers-", dir=options.folder) as folder:
        of = footage(options.video, Path(folder), options.clips, options.epochs)
        ways = {name: WAYS[name](of) for name in chosen if name not in missing}
        for name, way in ways.items():
            check(name, way, of)
        sizes = {name: disk_bytes(way.path) for name, way in ways.items()}
        rates = compare(ways, of, options.rounds, options.seconds)
    show(of, sizes, rates)
    if options.json is not None:
        found = {
            name: {"bytes": sizes[name], **{kind: asdict(rate) for kind, rate in kinds.items()}}
            for name, kinds in rates.items()
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _fault(name: str) -> str | None:
    """Why a peer cannot be imported, in one line."""
    try:
        import_module(MODULES.get(name, "numpy"))
    except (ImportError, OSError, RuntimeError) as error:  # of wheels for other machines, too
        return " ".join(str(error).split())[:100]
    return None


def compare(
    ways: dict[str, Way], of: Footage, rounds: int, seconds: float
) -> dict[str, dict[str, Rate]]:
    """The medians of every way, in process and across one."""
    kinds = {"in process": in_process, "process": across}
    found: dict[str, dict[str, list[Rate]]]
    found = {name: {kind: [] for kind in kinds} for name in ways}
    for turn in range(rounds):
        for name, way in ways.items():
            for kind, begin in kinds.items():
                print(f"\rround {turn + 1} of {rounds}: {name:20}", end="", file=sys.stderr)
                with ExitStack() as stack:
                    clips, others = stack.enter_context(begin(way, of))
                    found[name][kind].append(measure(clips, len(of.order), others, seconds))
    print(file=sys.stderr)
    return {
        name: {kind: _median(rates) for kind, rates in of_kind.items()}
        for name, of_kind in found.items()
    }


def _median(rates: Sequence[Rate]) -> Rate:
    return Rate(
        frames=statistics.median(rate.frames for rate in rates),
        cpu_milliseconds=statistics.median(rate.cpu_milliseconds for rate in rates),
    )


def show(of: Footage, sizes: dict[str, int], rates: dict[str, dict[str, Rate]]) -> None:
    """A table."""
    print(f"{len(of.starts)} clips of {of.length} frames, {of.images.nbytes / 1e6:.0f} MB raw")
    print(f"{'':14}{'MB':>8}{'in process':>24}{'process':>24}")
    print(f"{'':14}{'':>8}{'frames/s':>12}{'CPU ms/clip':>12}{'frames/s':>12}{'CPU ms/clip':>12}")
    for name, kinds in rates.items():
        cells = "".join(f"{r.frames:12,.0f}{r.cpu_milliseconds:12.2f}" for r in kinds.values())
        print(f"{name:14}{sizes[name] / 1e6:8.1f}{cells}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Shuffled clips, next to other libraries.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, at most")
    parser.add_argument("--only", action="append", choices=list(WAYS), help="instead of all")
    parser.add_argument("--folder", type=Path, help="where the data lies, for a short time")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
