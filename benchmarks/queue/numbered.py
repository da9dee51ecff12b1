"""Pictures that show their number, so that what is stored can be compared with what was sent.

64x64, in grey: 20 bits as 5 columns and 4 rows of blocks, dark for 0 and bright for 1, the lowest
bit at the top left, and a stripe of medium grey at the right.
"""

import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

SIDE, COLUMNS, ROWS = 64, 5, 4
BLOCK_WIDTH, BLOCK_HEIGHT = 12, 16
DARK, MEDIUM, BRIGHT = 40, 128, 216
FPS = 10


def drawn(numbers: np.ndarray) -> np.ndarray:
    """Pictures, uint8 (n, 64, 64, 3), of numbers."""
    bits = (numbers[:, None] >> np.arange(COLUMNS * ROWS)) & 1
    blocks = np.where(bits == 1, BRIGHT, DARK).astype(np.uint8).reshape(-1, ROWS, COLUMNS)
    large = blocks.repeat(BLOCK_HEIGHT, axis=1).repeat(BLOCK_WIDTH, axis=2)
    rest = SIDE - COLUMNS * BLOCK_WIDTH
    grey = np.pad(large, [(0, 0), (0, 0), (0, rest)], constant_values=MEDIUM)
    return np.repeat(grey[..., None], 3, axis=-1)


def numbers_in(images: np.ndarray) -> np.ndarray:
    """The numbers that pictures show, whatever else is wrong with them."""
    grey = images[..., 1].astype(np.int64)[:, :, : COLUMNS * BLOCK_WIDTH]
    blocks = grey.reshape(-1, ROWS, BLOCK_HEIGHT, COLUMNS, BLOCK_WIDTH).mean(axis=(2, 4))
    return ((blocks > MEDIUM).reshape(len(images), -1) << np.arange(COLUMNS * ROWS)).sum(axis=1)


def errors_of(images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Mean squared error of each picture, of the one that shows its number."""
    difference = images.astype(np.float32) - drawn(numbers)
    return np.square(difference).mean(axis=(1, 2, 3))


def graph() -> str:
    """FFmpeg's filters that draw the same, in real time."""
    bit = f"floor(Y/{BLOCK_HEIGHT})*{COLUMNS}+floor(X/{BLOCK_WIDTH})"
    block = f"{DARK}+{BRIGHT - DARK}*mod(floor(N/pow(2,{bit})),2)"
    value = f"if(lt(X,{COLUMNS * BLOCK_WIDTH}),{block},{MEDIUM})"
    planes = ":".join(f"{plane}='{value}'" for plane in "rgb")
    return f"nullsrc=s={SIDE}x{SIDE}:r={FPS},format=gbrp,geq={planes},realtime"


def paced(fps: float) -> Iterator[int]:
    """Numbers, each when it is due."""
    began, number = time.monotonic(), 0
    while True:
        time.sleep(max(0.0, began + number / fps - time.monotonic()))
        yield number
        number += 1


def send(address: str) -> None:
    """Encode them as H.264 and send them as MPEG-TS, until the process is killed."""
    with av.open(address, "w", format="mpegts") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"tune": "zerolatency", "crf": "10", "preset": "veryfast"}
        )
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.gop_size = FPS
        stream.time_base = Fraction(1, FPS)
        for number in paced(FPS):
            frame = av.VideoFrame.from_ndarray(drawn(np.array([number]))[0], format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
