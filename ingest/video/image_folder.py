"""A folder of pictures, or one picture of several pages, as numbered frames.

Sixteen bits of grey become eight, 65535 white and 0 black. Floats have no range of their own, so
they are refused, and so are integers of 32 bits.
"""

import re
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from ingest.errors import VideoError
from ingest.video.frames_reader import DamagedPictureError
from ingest.video.paths import PAGED_SUFFIXES, image_files

_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
_WHITE = 65535
_HOLE_STEPS = 1.5
_TOLERANCE = 0.2


class ImageFolder:
    """All pages of all images in natural order, upright as their EXIF orientation says.

    What is missing from steady numbers in their names is missing from the frames' numbers too.
    """

    kind = "images"

    def __init__(self, path: Path) -> None:
        """`path` is a folder, or one picture."""
        self.name = str(path)
        files = [path] if path.is_file() else image_files(path)
        pages = [_num_pages(file) for file in files]
        self._places = [
            (file, page) for file, count in zip(files, pages, strict=True) for page in range(count)
        ]
        is_paged = any(count > 1 for count in pages)
        self.names = [] if is_paged else [file.stem for file in files]
        """Name of each picture without its suffix; none where files have several pages."""
        self.numbers = _numbers_of_pages(pages) if is_paged else _numbers_of_files(files)
        self._open: tuple[Path, Image.Image] | None = None

    def picture(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decode one page to RGB."""
        path, page = self._places[index]
        try:
            image = self._opened(path)
            if page or image.tell():
                image.seek(page)  # animations are decoded from where they are
            return _rgb(image, path)
        except _PILLOW_ERRORS as error:
            self.close()
            where = f"{path}, page {page + 1}" if page else str(path)
            raise DamagedPictureError(f"{where}: {error}") from error

    def close(self) -> None:
        """Close the file whose pages are being read."""
        if self._open is not None:
            self._open[1].close()
        self._open = None

    def _opened(self, path: Path) -> Image.Image:
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = (path, Image.open(path))
        return self._open[1]


def _rgb(image: Image.Image, path: Path) -> UInt8[np.ndarray, "h w 3"]:
    mode = image.mode
    upright = ImageOps.exif_transpose(image)
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):
        wide = np.asarray(upright).astype(np.uint32)
        grey = ((wide * 255 + _WHITE // 2) // _WHITE).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if mode in ("F", "I"):
        kind = "floats" if mode == "F" else "integers of 32 bits"
        raise VideoError(
            f"{path}: pixels are {kind}, which have no white and black of their own; convert the "
            "pictures to 8 or 16 bits"
        )
    return np.asarray(upright.convert("RGB"))


def _num_pages(path: Path) -> int:
    if path.suffix.lower() not in PAGED_SUFFIXES:
        return 1
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1)
    except _PILLOW_ERRORS:
        return 1  # reading it counts the damage


def _numbers_of_pages(pages: list[int]) -> list[int]:
    """Pages follow each other, and a file of several does not continue the file before it."""
    numbers: list[int] = []
    for before, count in zip([1, *pages], pages, strict=False):
        start = numbers[-1] + 1 if numbers else 0
        start += bool(numbers) and max(before, count) > 1
        numbers += range(start, start + count)
    return numbers


def _numbers_of_files(files: list[Path]) -> list[int]:
    """By the numbers in names that are otherwise alike, in usual steps; else one after another."""
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", file.stem, re.DOTALL) for file in files]
    matches = [match for match in found if match is not None]
    alike = {(match[1], match[3]) for match in matches}
    steps = [int(b[2]) - int(a[2]) for a, b in pairwise(matches)]
    if len(matches) < len(files) or len(alike) != 1 or not steps or min(steps) <= 0:
        return list(range(len(files)))
    usual = median(steps)
    steady = sum(abs(step - usual) <= _TOLERANCE * usual for step in steps) > len(steps) / 2
    numbers = [0]
    for step in steps:
        is_hole = steady and step > _HOLE_STEPS * usual
        numbers.append(numbers[-1] + (max(2, round(step / usual)) if is_hole else 1))
    return numbers
