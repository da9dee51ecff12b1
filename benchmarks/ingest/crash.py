"""Kill `setcon ingest` at random moments, and compare what is left with the source's frames.

    python benchmarks/ingest/crash.py VIDEO [--kills 500] [--frames 1200] [--seed 0] [--folder DIR]
                                      [--json FILE]

The source is VIDEO at 128x128, repeated until it has --frames frames, encoded once more
as one file. In each format that is ingested once undisturbed, and then again and again by processes
that get SIGKILL after a random time; each continues where the one before it was killed. Every
process runs the command itself, forked from a server that has its imports.

After every kill a fresh reader opens the store: all pixels, times and gaps of what is committed
must be the first frames of the source, bit for bit, and no fewer than before. Whenever a recording
is complete, every file of it (frames, times, gaps, metadata, commit record) must have the same
bytes as in the undisturbed store, with no file more or less; then it is begun again.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import numpy as np
from store_speed import looped

from ingest.frame import Frames
from ingest.open import open_store
from ingest.store.protocols import Store
from ingest.store.records import StoreFormat
from ingest.video.mp4_writer import write_mp4
from ingest.video.open import open_video

FORMATS: list[StoreFormat] = ["zarr", "h5"]
SIZE = 128
FPS = 30
WAIT_SECONDS = 120
SHOW_EVERY = 25


class BrokenPromiseError(Exception):
    """A promise of the store was not kept."""


@dataclass(kw_only=True)
class Tally:
    """What happened in one format."""

    format: StoreFormat
    kills: int = 0
    """Processes that were still at work when the signal came."""
    with_half_written_files: int = 0
    """Kills after which there were files that had not got their names yet."""
    before_the_first_commit: int = 0
    finished_before_the_kill: int = 0
    frames_compared: int = 0
    """Committed frames read and compared, after all kills together."""
    recordings_compared: int = 0
    """Complete recordings whose every file was compared with the undisturbed one's."""
    files_compared: int = 0
    seconds: float = 0.0


def main() -> None:
    options = _options()
    # the killed cannot give their locks back, and Python would say so at the end
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["cli", "ingest.jobs", "ingest.store.formats.zarr_files", "ingest.store.formats.h5_files"]
    )
    tallies = []
    with tempfile.TemporaryDirectory(prefix="setcon-crash-", dir=options.folder) as folder:
        video = _make_source(options.video, Path(folder) / "source.mp4", options.frames)
        with open_video(video, size=SIZE) as reader:
            frames = Frames.stack(list(reader.frames()))
        for store_format in FORMATS:
            trial = _Trial(video, frames, Path(folder), store_format, options.seed)
            tallies.append(trial.run(options.kills))
    print(f"{options.video.name}, {len(frames)} frames of {SIZE}x{SIZE}, seed {options.seed}:")
    print(f"{'':28}" + "".join(f"{tally.format:>12}" for tally in tallies))
    rows = [asdict(tally) for tally in tallies]
    for field in list(rows[0])[1:]:
        print(f"{field.replace('_', ' '):28}" + "".join(f"{row[field]:12,.0f}" for row in rows))
    print("no committed frame was torn, lost, doubled or changed")
    if options.json is not None:
        result = {"video": options.video.name, "frames": len(frames), "seed": options.seed}
        options.json.write_text(json.dumps({**result, "rows": rows}, indent=1) + "\n")


class _Trial:
    """The kills of one format."""

    def __init__(
        self, video: Path, frames: Frames, folder: Path, store_format: StoreFormat, seed: int
    ) -> None:
        self._video = video
        self._frames = frames
        self._format: StoreFormat = store_format
        self._path = folder / f"{store_format}-killed"
        self._random = Random(f"{seed}/{store_format}")
        self._tally = Tally(format=store_format)
        whole = folder / f"{store_format}-whole"
        self._span_seconds = self._undisturbed(whole) / 3
        self._expected = _files(open_store(whole))
        self._committed = 0

    def run(self, kills: int) -> Tally:
        """Kill until `kills` processes died at work, then let the last recording be finished."""
        begun = time.monotonic()
        while self._tally.kills < kills:
            self._disturb()
            if self._tally.kills % SHOW_EVERY == 0:
                done = f"{self._tally.kills}/{kills} kills, {self._committed} frames committed"
                print(f"\r{self._format}: {done}   ", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        self._undisturbed(self._path)
        self._compare()
        self._tally.seconds = time.monotonic() - begun
        return self._tally

    def _disturb(self) -> None:
        with _ingesting(self._video, self._path, self._format) as process:
            process.join(self._random.uniform(0, self._span_seconds))
            process.kill()
            process.join(WAIT_SECONDS)
            code = process.exitcode
        if code == 0:
            self._tally.finished_before_the_kill += 1
        elif code == -9:
            self._tally.kills += 1
        else:
            raise BrokenPromiseError(f"{self._format}: `setcon ingest` ended with {code}")
        self._compare()

    def _undisturbed(self, path: Path) -> float:
        """Let a process ingest to the end; returns the seconds it took."""
        with _ingesting(self._video, path, self._format) as process:
            begun = time.monotonic()
            process.join(WAIT_SECONDS)
            if process.exitcode != 0:
                raise BrokenPromiseError(
                    f"{self._format}: undisturbed, it ended with {process.exitcode}"
                )
        return time.monotonic() - begun

    def _compare(self) -> None:
        """What a reader sees now, against the source and against what it saw before."""
        if not (self._path / "store.json").exists():
            self._tally.before_the_first_commit += 1
            return
        store = open_store(self._path)
        if store.recordings() != ["source"]:
            if self._committed or store.recordings():
                raise BrokenPromiseError(
                    f"{self._format}: {self._committed} committed frames are gone"
                )
            self._tally.before_the_first_commit += 1
            return
        self._tally.with_half_written_files += bool(store.leftovers("source"))
        with store.reader("source") as reader:
            commit = reader.commit
            read = reader.read(0, commit.length)
        if commit.length < self._committed:
            raise BrokenPromiseError(
                f"{self._format}: {commit.length} frames, {self._committed} before"
            )
        _check_equal(read, self._frames.part(0, commit.length))
        self._committed = commit.length
        self._tally.frames_compared += commit.length
        if commit.complete:
            self._compare_files(store)

    def _compare_files(self, store: Store) -> None:
        found = _files(store)
        if found != self._expected:
            names = [n for n in found | self._expected if found.get(n) != self._expected.get(n)]
            raise BrokenPromiseError(f"{self._format}: other bytes in {sorted(names)}")
        self._tally.recordings_compared += 1
        self._tally.files_compared += len(found)
        store.remove("source")
        self._committed = 0


def _check_equal(read: Frames, expected: Frames) -> None:
    for field in ("images", "pts_ns", "gap"):
        if not np.array_equal(getattr(read, field), getattr(expected, field)):
            raise BrokenPromiseError(
                f"{field} of the first {len(expected)} frames differ from the source"
            )


def _files(store: Store) -> dict[str, bytes]:
    """Every file of the recording with its bytes."""
    folder = Path(store.location) / "recordings" / "source"
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@contextmanager
def _ingesting(video: Path, store: Path, store_format: StoreFormat) -> Iterator:
    """A process that has begun the command."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_ingest, args=(theirs, str(video), str(store), store_format))
    process.start()
    theirs.close()
    if not ours.poll(WAIT_SECONDS):
        raise BrokenPromiseError("a process did not begin")
    ours.close()
    try:
        yield process
    finally:
        process.kill()
        process.join(WAIT_SECONDS)


def _ingest(begun: Connection, video: str, store: str, store_format: str) -> None:
    import cli

    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    begun.send(None)
    arguments = ["ingest", video, store, "--format", store_format, "--size", str(SIZE)]
    cli.main(arguments, standalone_mode=False)


def _make_source(video: Path, path: Path, count: int) -> Path:
    frames = looped(video, count)
    with write_mp4(
        path,
        height=SIZE,
        width=SIZE,
        length=count,
        fps=FPS,
        ticks_per_second=FPS,
        has_masks=False,
        attributes={},
    ) as write:
        write(frames)
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill `setcon ingest` at random moments.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--kills", type=int, default=500, help="of each format")
    parser.add_argument("--frames", type=int, default=1200, help="of the source")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the stores lie  [default: the system's for temporary files]",
    )
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
