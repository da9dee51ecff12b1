"""A live MPEG-TS over UDP that loses datagrams: is a damaged picture ever stored?

    python benchmarks/ingest/live_loss.py [--runs 10] [--rate 2] [--frames 300]

The footage of `loss.py`, H.264 with B-frames and a key frame every two seconds, goes over a real
socket into a camera, without so many in a hundred of its datagrams of 1,316 bytes. A picture that
is kept is wrong where its mean squared error to the likest of all undamaged ones is over 30, in RGB
of 128x128.
"""

import argparse
import logging
import random
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from loss import DATAGRAM_BYTES, WRONG_MSE, encode, footage, plainly_decoded

from ingest.errors import VideoError
from ingest.live.camera import Camera
from ingest.live.devices import parse_device
from ingest.store.records import Counters, RecordSettings

SETTINGS = RecordSettings(size=128, fit="stretch", reader="camera")
PAUSE_SECONDS = 0.004
"""Between two datagrams: some times real time."""


def send(data: bytes, port: int, rate: float, seed: int, ended: threading.Event) -> None:
    lot = random.Random(seed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        time.sleep(1.0)  # until the camera listens
        for at in range(0, len(data), DATAGRAM_BYTES):
            if lot.random() >= rate / 100:
                out.sendto(data[at : at + DATAGRAM_BYTES], ("127.0.0.1", port))
            time.sleep(PAUSE_SECONDS)
    time.sleep(1.0)
    ended.set()


def kept(data: bytes, rate: float, seed: int) -> tuple[list[np.ndarray], Counters]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended, images = threading.Event(), []
    sender = threading.Thread(target=send, args=(data, port, rate, seed, ended))
    sender.start()
    device = parse_device(f"udp://127.0.0.1:{port}?buffer_size=8000000")
    with Camera(device, SETTINGS) as camera:
        ended.wait()
        camera.stop()
        while True:
            taken = camera.take(100)
            if taken is not None and taken.frames is not None:
                images += list(taken.frames.images)
            if taken is not None and taken.last:
                return images, taken.counters


def is_wrong(image: np.ndarray, clean: np.ndarray) -> bool:
    small = np.abs(clean[:, ::4, ::4] - image[::4, ::4].astype(np.int16)).mean(axis=(1, 2, 3))
    likest = clean[small.argsort()[:3]].astype(float)
    return bool(((likest - image) ** 2).mean(axis=(1, 2, 3)).min() > WRONG_MSE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--frames", type=int, default=300)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clean.ts"
        encode(path, "H.264", list(footage(args.frames)), list(range(args.frames)), 50)
        data = path.read_bytes()
        clean = np.stack(list(plainly_decoded(path).values())).astype(np.int16)
    stored = wrong = 0
    for seed in range(args.runs):
        try:
            images, counters = kept(data, args.rate, seed)
        except VideoError as error:  # no key frame came whole
            print(f"run {seed}: {error}")
            continue
        found = sum(is_wrong(image, clean) for image in images)
        stored, wrong = stored + len(images), wrong + found
        print(f"run {seed}: {len(images)} stored, {found} wrong, {counters.dropped} dropped")
    print(f"{stored} stored, {wrong} wrong")


if __name__ == "__main__":
    main()
