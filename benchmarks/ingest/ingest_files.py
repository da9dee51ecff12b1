"""`setcon ingest` of H.264 against FFmpeg alone; its memory; and how a killed one goes on.

    python benchmarks/ingest/ingest_files.py VIDEO [speed] [short] [memory] [soak] [resume]
                                             [--rounds 5] [--minutes A B] [--clips 200] [--hours 3]
                                             [--folder DIR] [--json FILE]

VIDEO is any footage; `ffmpeg`, which must be installed, makes 1080p30 and 640x480 H.264 of it, over
and over until it is long enough. Files are in the page cache, processes take turns.

speed     seconds of whole processes, medians: `setcon ingest --fit stretch` against `ffmpeg -vf
          scale=128:128,format=rgb24 -f null` with the same kernel, decord and a loop that calls
          `frame.reformat` for each frame of PyAV. Those three keep nothing. Starting Python and
          importing takes `setcon ingest` most of a second, so files are minutes long
short     frames a second of a folder of 640x480 clips, 5 s each, against those of one file of the
          same footage, both with the default number of workers
memory    what the process of an ingest takes at most over the bare import, and how it grows per
          hour of footage
soak      the same growth over ten hours of 64x48, stored at 32x32: little to decode, so that more
          frames, packets and commits go by
resume    an hour's ingest is killed at nine tenths: seconds from the same command to its first new
          commit, and how much of the footage it decodes again
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import StoreError
from ingest.open import open_store

SIZES = {"1080p": "1920:1080", "640x480": "640:480"}
TINY, SOAK_HOURS = "64:48", 10.0
FPS = 30
CLIP_SECONDS = 5
INGEST = [sys.executable, "-m", "setcon", "ingest", "--fit", "stretch"]
DECORD = """
import sys, decord
reader = decord.VideoReader(sys.argv[1], width=128, height=128)
for i in range(len(reader)):
    reader[i].asnumpy()
"""
LOOP = """
import sys, av
with av.open(sys.argv[1]) as container:
    container.streams.video[0].thread_type = "AUTO"
    for frame in container.decode(video=0):
        frame.reformat(width=128, height=128, format="rgb24", interpolation="BILINEAR").to_ndarray()
"""
IMPORT = (
    "import cli, ingest.jobs, ingest.video.pyav_reader, ingest.store.formats.zarr_files, av, zarr"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def finish(command: list[str]) -> Ended:
    """Run a process to its end."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:6]} ended with {process.returncode}: {said.decode()}")
    seconds = time.monotonic() - started
    return Ended(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def encode(video: Path, scale: str, seconds: float, out: Path) -> Path:
    """Footage as H.264 of `seconds`; a minute is encoded, and its packets repeated."""
    minute = out.with_name(f"minute-{out.name}")
    length = ["-t", str(min(seconds, 60.0))]
    kernel = ["-vf", f"scale={scale},fps={FPS},format=yuv420p"]
    h264 = ["-c:v", "libx264", "-preset", "veryfast", "-an"]
    quiet = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1"]
    finish([*quiet, "-i", str(video), *kernel, *length, *h264, str(minute)])
    copied = ["-c", "copy", "-t", str(seconds), str(out)]
    finish([*quiet, "-i", str(minute), *copied])
    minute.unlink()
    return out


def speed(video: Path, folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Median seconds of each way, for each size."""
    found: dict[str, dict[str, float]] = {}
    for size, minutes in zip(SIZES, options.minutes, strict=True):
        seconds = 60 * minutes
        _progress(f"{size}: encoding")
        file = encode(video, SIZES[size], seconds, folder / f"{size}.mp4")
        store = folder / "store"
        scale = "scale=128:128:flags=bilinear,format=rgb24"
        ways = {
            "ffmpeg": ["ffmpeg", "-v", "error", "-i", str(file), "-vf", scale, "-f", "null", "-"],
            "setcon ingest": [*INGEST, str(file), str(store)],
            "the same, --reader decord": [*INGEST, "--reader", "decord", str(file), str(store)],
            "decord": [sys.executable, "-c", DECORD, str(file)],
            "PyAV, a frame at a time": [sys.executable, "-c", LOOP, str(file)],
        }
        taken: dict[str, list[Ended]] = {way: [] for way in ways}
        for round_number in range(options.rounds + 1):
            for way, command in ways.items():
                shutil.rmtree(store, ignore_errors=True)
                _progress(f"{size}, round {round_number} of {options.rounds}: {way}")
                ended = finish(command)
                if round_number:  # the first one brings the file into the page cache
                    taken[way].append(ended)
        frames = seconds * FPS
        base = statistics.median(ended.seconds for ended in taken["ffmpeg"])
        base_cpu = statistics.median(ended.cpu_seconds for ended in taken["ffmpeg"])
        print(f"\r{size}, {frames:g} frames{'':40}")
        found[size] = {}
        for way, each in taken.items():
            median = statistics.median(ended.seconds for ended in each)
            cpu = statistics.median(ended.cpu_seconds for ended in each)
            found[size][way] = median
            print(
                f"  {way:26} {median:7.2f} s  {frames / median:7.0f} frames/s  "
                f"{median / base:5.2f} of ffmpeg  CPU {cpu:6.2f} s, {cpu / base_cpu:5.2f}"
            )
    return found


def memory(video: Path, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The most an ingest takes, and its growth over hours of footage."""
    bare = finish([sys.executable, "-c", IMPORT]).peak_mb
    hours = options.hours
    short = finish(
        [
            *INGEST,
            str(encode(video, SIZES["1080p"], 60, folder / "short.mp4")),
            str(folder / "short"),
        ]
    ).peak_mb
    file = encode(video, SIZES["640x480"], 3600 * hours, folder / "long.mp4")
    long, slope = watch([*INGEST, str(file), str(folder / "long")], folder / "long", hours)
    print(
        f"\rpeak over the bare import of {bare:.0f} MB: {short - bare:.0f} MB for a minute of 1080p"
    )
    print(f"of {hours:g} hours of 640x480: {long - bare:.0f} MB, growing {slope:.2f} MB an hour")
    return {"bare": bare, "short": short - bare, "long": long - bare, "slope": slope}


def soak(video: Path, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """How an ingest grows over as many frames as ten hours have."""
    _progress("soak: encoding")
    file = encode(video, TINY, 3600 * SOAK_HOURS, folder / "soak.mp4")
    command = [*INGEST, "--size", "32", str(file), str(folder / "soak")]
    peak, slope = watch(command, folder / "soak", SOAK_HOURS)
    print(f"\r{SOAK_HOURS:g} hours of 64x48: {peak:.0f} MB at most, growing {slope:.2f} MB an hour")
    return {"peak": peak, "slope": slope}


def watch(command: list[str], store: Path, hours: float) -> tuple[float, float]:
    """The most that an ingest takes, in MB, and its growth per hour after the first quarter."""
    seen: list[tuple[float, float]] = []
    peak = 0.0
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    while process.poll() is None:
        time.sleep(1.0)
        if (where := _committed(store)) is not None:
            seen.append((where / FPS / 3600, _memory_mb(process.pid, "VmRSS")))
            peak = max(peak, _memory_mb(process.pid, "VmHWM"))
            _progress(f"memory: {seen[-1][0]:.1f} of {hours:g} hours, {seen[-1][1]:.1f} MB")
    if process.returncode:
        raise SystemExit(f"{command[:6]} ended with {process.returncode}")
    settled = [(hour, mb) for hour, mb in seen if hour > hours / 4 and mb]
    return peak, statistics.linear_regression(*zip(*settled, strict=True)).slope


def resume(video: Path, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """A kill at nine tenths of an hour."""
    _progress("resume: encoding an hour")
    file = encode(video, SIZES["640x480"], 3600, folder / "hour.mp4")
    store, total = folder / "hour", 3600 * FPS
    command = [*INGEST, str(file), str(store)]
    whole = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while (_committed(store) or 0) < 0.9 * total:
        _progress(f"resume: {_committed(store) or 0} of {total:g} frames")
        if process.poll() is not None:
            raise SystemExit("the ingest ended before it was killed")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = -signal.SIGKILL
    cpu_before = used.ru_utime + used.ru_stime
    killed_after = time.monotonic() - whole
    before = _committed(store) or 0
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while (_committed(store) or 0) <= before:
        if process.poll() is not None:
            raise SystemExit(f"setcon ingest ended with {process.returncode}")
        time.sleep(0.01)
    first = time.monotonic() - started
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    rest, cpu = time.monotonic() - started, used.ru_utime + used.ru_stime
    commit = open_store(store).commit("hour")
    print(
        f"\rkilled at frame {before} of {total:g} after {killed_after:.1f} s and "
        f"{cpu_before:.1f} s of CPU; the same command committed new frames after {first:.1f} s and "
        f"ended with {process.returncode} after {rest:.1f} s and {cpu:.1f} s of CPU, with "
        f"{commit.length} frames, complete: {commit.complete}"
    )
    share = cpu / (cpu + cpu_before)
    return {"first_commit": first, "rest": rest, "killed_after": killed_after, "cpu_share": share}


def short(video: Path, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Median frames a second of one long file and of many short ones."""
    clips, long = folder / "clips", folder / "long.mp4"
    clips.mkdir()
    seconds = CLIP_SECONDS * options.clips
    _progress("encoding")
    # hues that turn all the time: copies of one clip would be one recording
    kernel = f"scale={SIZES['640x480']},fps={FPS},hue=h=3*t,format=yuv420p"
    keys = ["-g", str(CLIP_SECONDS * FPS), "-sc_threshold", "0"]
    h264 = ["-c:v", "libx264", "-preset", "veryfast", *keys, "-an", "-t", str(seconds)]
    quiet = ["ffmpeg", "-v", "error", "-y"]
    finish([*quiet, "-stream_loop", "-1", "-i", str(video), "-vf", kernel, *h264, str(long)])
    parts = ["-f", "segment", "-segment_time", str(CLIP_SECONDS), "-reset_timestamps", "1"]
    finish([*quiet, "-i", str(long), "-c", "copy", *parts, str(clips / "clip-%04d.mp4")])
    store, taken = folder / "store", {"one file": [], "clips": []}
    for round_number in range(options.rounds + 1):
        for way, source in (("one file", long), ("clips", clips)):
            shutil.rmtree(store, ignore_errors=True)
            _progress(f"round {round_number} of {options.rounds}: {way}")
            ended = finish([*INGEST, str(source), str(store)])
            if len(open_store(store).recordings()) != (options.clips if way == "clips" else 1):
                raise SystemExit(f"{way}: not every clip is a recording of its own")
            if round_number:  # the first one brings the files into the page cache
                taken[way].append(ended.seconds)
    rates = {way: seconds * FPS / statistics.median(each) for way, each in taken.items()}
    share = rates["clips"] / rates["one file"]
    print(f"\r{options.clips} clips of {CLIP_SECONDS} s{'':50}")
    for way, rate in rates.items():
        print(f"  {way:10} {rate:7.0f} frames a second")
    print(f"  clips have {share:.2f} of the throughput of one file (aim 0.8)")
    return rates


def _committed(store: Path) -> int | None:
    """Frames of the only recording that a reader may see; None before there are any."""
    if not (store / "store.json").exists():
        return None
    opened = open_store(store)
    with suppress(StoreError):  # it is just being made
        for name in opened.recordings():
            return opened.commit(name).length
    return None


def _memory_mb(pid: int, what: str) -> float:
    """`VmRSS`, as of now, or `VmHWM`, at most so far; 0 of a process that is no more."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) / 1024
    return 0.0


def _progress(text: str) -> None:
    print(f"\r{text:70}", end="", file=sys.stderr, flush=True)


def main() -> None:
    options = _options()
    parts = {"speed": speed, "memory": memory, "soak": soak, "resume": resume, "short": short}
    found = {}
    for what in options.what or parts:
        with tempfile.TemporaryDirectory(prefix="setcon-ingest-", dir=options.folder) as folder:
            found[what] = parts[what](options.video, Path(folder), options)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ingest against FFmpeg.")
    parser.add_argument("video", type=Path)
    parser.add_argument("what", nargs="*", choices=["speed", "memory", "soak", "resume", "short"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--minutes", type=float, nargs=2, default=[3.0, 10.0], help="of each size, for speed"
    )
    parser.add_argument("--clips", type=int, default=200, help="for short")
    parser.add_argument("--hours", type=float, default=3.0, help="of footage, for memory")
    parser.add_argument("--folder", type=Path, help="where footage and stores lie, for a while")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
