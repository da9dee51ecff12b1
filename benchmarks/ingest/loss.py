"""MPEG-TS that a network has lost datagrams of, and files that a recorder left frames out of.

    python benchmarks/ingest/loss.py [--seeds 30] [--rates 0.3 1 3] [--codecs H.264 HEVC ...]
                                     [--frames 300] [--gop 50] [--json FILE]

Footage of 320x240 pans over a texture, with squares that move on it. Its MPEG-TS is sent in
datagrams of 1,316 bytes, of which each is lost with a probability of so many in a hundred.
FFmpeg's plain decoder, which hides damage, says what is damaged: pictures that it lacks, or whose
mean squared error to the undamaged one, in RGB of 128x128, is over 30.

wrong     pictures that are stored though they are damaged, as a share of those stored
thrown    pictures that are not stored though they are undamaged, against those damaged
left out  the same footage, of which the recorder leaves out as many frames: none may be thrown
          away, and every hole must be a gap
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream

from ingest.decoding.scaling import Scaler
from ingest.errors import VideoError
from ingest.video.pyav_reader import PyAVReader

CODECS = {
    "H.264": ("libx264", {"preset": "veryfast", "bf": "2"}),
    "HEVC": (
        "libx265",
        {
            "preset": "ultrafast",
            "x265-params": "log-level=none:bframes=2:pools=none:frame-threads=1",
        },
    ),
    "MPEG-4": ("mpeg4", {"bf": "2"}),
    "MPEG-2": ("mpeg2video", {"bf": "2"}),
}
HEIGHT, WIDTH, FPS, BITS_PER_SECOND = 240, 320, 25, 1_500_000
DATAGRAM_BYTES = 7 * 188
WRONG_MSE = 30.0
Pictures = dict[int, np.ndarray]
"""By presentation time."""


@dataclass(kw_only=True)
class Score:
    """Sums over seeds."""

    frames: int = 0
    damaged: int = 0
    stored: int = 0
    wrong: int = 0
    thrown: int = 0
    gaps: int = 0
    holes: int = 0


def footage(count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    coarse = random.uniform(20, 230, (48, 64, 3))
    texture = np.kron(coarse, np.ones((16, 16, 1)))
    texture += random.normal(0, 6, texture.shape)
    for index in range(count):
        row = round(200 + 180 * np.sin(index / 40))
        column = round(300 + 280 * np.sin(index / 55))
        image = texture[row : row + HEIGHT, column : column + WIDTH].clip(0, 255).astype(np.uint8)
        for square in range(3):
            y = round(100 + 90 * np.sin(index / 11 + 2 * square))
            x = round(140 + 130 * np.cos(index / 17 + square))
            image[y : y + 40, x : x + 40] = (250, 80 * square, 30)
        yield image


def encode(path: Path, codec: str, images: list[np.ndarray], numbers: list[int], gop: int) -> None:
    name, options = CODECS[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate, stream.gop_size = BITS_PER_SECOND, gop
        for number in numbers:
            frame = av.VideoFrame.from_ndarray(images[number], format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def lose(source: Path, target: Path, share: float, seed: int) -> None:
    data = source.read_bytes()
    random = np.random.default_rng(seed)
    datagrams = range(0, len(data), DATAGRAM_BYTES)
    kept = random.random(len(datagrams)) >= share
    kept[0] = True  # the tables, without which nothing is known
    target.write_bytes(
        b"".join(
            data[at : at + DATAGRAM_BYTES] for at, keep in zip(datagrams, kept, strict=True) if keep
        )
    )


def plainly_decoded(path: Path) -> Pictures:
    scaler, pictures = Scaler(size=128, fit="stretch"), {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                if frame.pts is not None and frame.time_base is not None:
                    time = round(frame.pts * frame.time_base * 1_000_000_000)
                    pictures[time] = scaler.image(frame, scaler.plan(frame))
    return pictures


def stored(path: Path) -> tuple[Pictures, int]:
    try:
        with PyAVReader(str(path), size=128, fit="stretch") as reader:
            pictures = {frame.pts_ns: frame.image for frame in reader.frames()}
            return pictures, reader.counters.gaps
    except VideoError:  # no key frame is whole
        return {}, 1


def good(pictures: Pictures, clean: Pictures) -> set[int]:
    """Times of the pictures that are as they should be."""
    return {
        time
        for time, image in pictures.items()
        if time in clean and ((image.astype(float) - clean[time]) ** 2).mean() <= WRONG_MSE
    }


def add_loss(score: Score, clean: Pictures, path: Path) -> None:
    undamaged = good(plainly_decoded(path), clean)
    kept, gaps = stored(path)
    sound = good(kept, clean)
    score.frames += len(clean)
    score.damaged += len(clean) - len(undamaged | sound)
    score.stored += len(kept)
    score.wrong += len(kept) - len(sound)
    score.thrown += len(undamaged - set(kept))
    score.gaps += gaps - 1


def add_left_out(score: Score, path: Path, numbers: list[int]) -> None:
    whole, (kept, gaps) = plainly_decoded(path), stored(path)
    score.frames += len(numbers)
    score.stored += len(kept)
    score.wrong += len(kept) - len(good(kept, whole))
    score.thrown += len(whole.keys() - kept.keys())
    score.gaps += gaps - 1
    score.holes += int((np.diff(numbers) > 1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--codecs", nargs="+", choices=CODECS, default=list(CODECS))
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--gop", type=int, default=50)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    images, rows = list(footage(args.frames)), []
    print("| codec | | rate | frames | damaged | stored | wrong | thrown | breaks | holes |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        whole, other = Path(folder, "whole.ts"), Path(folder, "other.ts")
        for codec in args.codecs:
            encode(whole, codec, images, list(range(args.frames)), args.gop)
            clean = plainly_decoded(whole)
            for rate in args.rates:
                lost, left_out = Score(), Score()
                for seed in range(args.seeds):
                    lose(whole, other, rate / 100, seed)
                    add_loss(lost, clean, other)
                    kept = np.random.default_rng(seed).random(args.frames) >= rate / 100
                    kept[[0, -1]] = True
                    numbers = np.flatnonzero(kept).tolist()
                    if seed < max(1, args.seeds // 10):
                        encode(other, codec, images, numbers, args.gop)
                        add_left_out(left_out, other, numbers)
                for kind, score in (("lost", lost), ("left out", left_out)):
                    rows.append({"codec": codec, "kind": kind, "rate": rate, **asdict(score)})
                    cells = " | ".join(str(value) for value in asdict(score).values())
                    print(f"| {codec} | {kind} | {rate:g} % | {cells} |", flush=True)
    total = Counter()
    for row in rows:
        if row["kind"] == "lost":
            total.update({key: row[key] for key in ("damaged", "stored", "wrong", "thrown")})
    print(
        f"\nlost: {1000 * total['wrong'] / max(1, total['stored']):.2f} wrong in 1,000 stored, "
        f"{total['thrown'] / max(1, total['damaged']):.2f} thrown for each damaged"
    )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
