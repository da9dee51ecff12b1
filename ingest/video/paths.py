"""Which files of a folder are videos, pictures or masks, and in which order."""

import os
import re
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf"}
    | {".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg"}
    | {".mpg", ".mpv", ".mts", ".mxf", ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb"}
    | {".roq", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
GIF = ".gif"
"""A video where there are no pictures next to it; otherwise left out."""
IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"}
    | {".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
PAGED_SUFFIXES = frozenset({".apng", ".avif", ".png", ".tif", ".tiff", ".webp"})
"""Pictures that may have several pages or be animated."""
FRAMES_FOLDER = "JPEGImages"
"""What DAVIS, YouTube-VOS and YouTube-VIS have next to Annotations."""
MASK_SUFFIX = "_mask"
"""NAME_mask.png next to a picture NAME is its mask, and no frame."""


def files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The files with one of some suffixes, in natural order; not what macOS adds as `._NAME`."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    return sorted((p for p in found if not p.name.startswith("._")), key=natural_order)


def image_files(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order, frame 2 before frame 10, without their masks."""
    return _pictures_and_masks(folder)[0]


def label_files(folder: Path) -> list[Path]:
    """The PNG files that are masks: those of the pictures next to them, or all where none is."""
    pictures, masks = _pictures_and_masks(folder)
    return masks or [path for path in pictures if path.suffix.lower() == ".png"]


def has_masks(folder: Path) -> bool:
    """Whether there are masks of pictures next to them."""
    return bool(_pictures_and_masks(folder)[1])


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order."""
    found = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(found, key=natural_order)


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that takes numbers in a name as numbers."""
    pieces = re.split(r"(\d+)", str(path))
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p) for p in pieces]


def path_text(path: Path) -> str:
    """A path as text for JSON and terminals; bytes that are not UTF-8 are spelled out."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _pictures_and_masks(folder: Path) -> tuple[list[Path], list[Path]]:
    found = files(folder, IMAGE_SUFFIXES)
    stems = {path.stem for path in found}
    masks = {path for path in found if _is_mask(path, stems)}
    return [path for path in found if path not in masks], [path for path in found if path in masks]


def _is_mask(path: Path, stems: set[str]) -> bool:
    of = path.stem.removesuffix(MASK_SUFFIX)
    return path.suffix.lower() == ".png" and of != path.stem and of in stems
