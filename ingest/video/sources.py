"""What the words on a command line mean: files, folders, globs, image folders, frame archives.

Every source becomes one recording, with a name that stays the same from one run to the next.
"""

import glob
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py

from ingest.errors import StoreError, VideoError
from ingest.store.layout import is_store
from ingest.store.protocols import Store
from ingest.store.records import Source
from ingest.video.masks import SUFFIX as MASKS_SUFFIX
from ingest.video.masks import find_sidecar

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m4v", ".mjpeg"}
    | {".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts"}
    | {".vob", ".webm", ".wmv", ".y4m"}
)
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
ARCHIVE_PARTS = ("train", "test")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source of one recording."""

    path: Path
    kind: Literal["video", "images", "archive"]
    part: str = ""
    """Group of a frame archive: `train` or `test`."""

    def __str__(self) -> str:
        path = printable(self.path)
        return f"{path} ({self.part})" if self.part else path


def expand(source: str) -> list[SourceSpec]:
    """Turn one word into its sources, in natural order; VideoError where it names none."""
    path = Path(source)
    if not path.exists() and glob.has_magic(source):
        found = [
            Path(match)
            for match in glob.glob(source, recursive=True)  # noqa: PTH207 - absolute too
            if Path(match).is_file() and not match.endswith(MASKS_SUFFIX)
        ]
        if not found:
            raise VideoError(f"{source}: no file matches; check the pattern")
        return [spec for match in sorted(found, key=natural_order) for spec in _of_file(match)]
    if not path.exists():
        raise VideoError(f"{source}: no such file or folder; check the path")
    return _of_folder(path) if path.is_dir() else _of_file(path)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, in natural order: frame 2 before frame 10."""
    return _files(folder, IMAGE_SUFFIXES)


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that takes numbers in a name as numbers."""
    pieces = re.split(r"(\d+)", str(path))
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p) for p in pieces]


def printable(path: Path) -> str:
    """A path as text for JSON and terminals; bytes that are not UTF-8 are spelled out."""
    return os.fsencode(path).decode(errors="backslashreplace")


def fingerprint(spec: SourceSpec) -> Source:
    """A digest that distinguishes a source from others, without reading all of it."""
    digest = hashlib.sha256()
    if spec.kind == "images":
        files = image_files(spec.path)
        for path in files:
            digest.update(os.fsencode(path.name) + f" {path.stat().st_size}\n".encode())
        ends = {files[0], files[-1]} if files else set()
    else:
        files = [spec.path]
        masks = find_sidecar(spec.path) if spec.kind == "video" else None
        ends = {spec.path} | ({masks} if masks else set())
    for path in sorted(ends):
        _add_ends(digest, path)
    return Source(
        path=printable(spec.path.resolve()),
        part=spec.part,
        size_bytes=sum(path.stat().st_size for path in files),
        digest=digest.hexdigest(),
    )


def name_recordings(sources: Sequence[Source], store: Store) -> list[str]:
    """A name for each source, from its file name; the one it already has in `store` if it is there.

    Sources that would share a name get six digits of their fingerprint appended; copies of one file
    are one recording.
    """
    plain = [_plain_name(source) for source in sources]
    contents = {(name, source.digest) for name, source in zip(plain, sources, strict=True)}
    counts = Counter(name for name, _ in contents)
    return [
        _name(source, name, store, sources, shared=counts[name] > 1)
        for source, name in zip(sources, plain, strict=True)
    ]


def _name(
    source: Source, plain: str, store: Store, batch: Sequence[Source], *, shared: bool
) -> str:
    long = f"{plain}-{source.digest[:6]}"
    stored = {
        name: _stored_source(store, name) for name in store.recordings() if name in (plain, long)
    }
    for name, known in stored.items():
        if known is not None and known.same_content(source):
            return name
    if stored.get(long, source) is None:
        return long  # damaged, and used by no other source: the writer refuses, and reports it
    if plain not in stored:
        return long if shared else plain
    known = stored[plain]
    if known is None:
        return long if shared else plain  # damaged: the writer refuses, and reports it
    moved = any(known.same_content(other) for other in batch)
    changed = known.path == source.path and not moved
    return plain if changed else long  # where the file changed, the writer refuses


def _stored_source(store: Store, name: str) -> Source | None:
    """What a recording was made from; None where its commit record is damaged."""
    try:
        return store.commit(name).source
    except StoreError:
        return None


def _plain_name(source: Source) -> str:
    path = Path(source.path)
    stem = path.name if path.is_dir() else path.stem
    name = re.sub(r"[^\w.+ ()@=-]", "_", stem).encode()[:150].decode(errors="ignore")
    name = name.lstrip("_.+ ()@=-") or "recording"
    return f"{name}-{source.part}" if source.part else name


def _of_folder(folder: Path) -> list[SourceSpec]:
    videos, images = _files(folder, VIDEO_SUFFIXES), image_files(folder)
    if videos and images:
        log.warning(
            "%s: %d images next to %d videos are left out; name the folder of images by itself",
            folder,
            len(images),
            len(videos),
        )
    if videos:
        return [SourceSpec(path, "video") for path in videos]
    if images:
        return [SourceSpec(folder, "images")]
    found = "is a store already" if is_store(folder) else "has no videos or images"
    raise VideoError(f"{folder}: {found}; name a video, or a folder of videos or of images")


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    found = (p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    return sorted(found, key=natural_order)


def _of_file(path: Path) -> list[SourceSpec]:
    if not path.is_file():  # opening a pipe would wait forever
        raise VideoError(f"{path}: a pipe or a device, not a file; name a video file")
    if not h5py.is_hdf5(path):
        return [SourceSpec(path, "video")]
    try:
        with h5py.File(path, "r") as file:
            held = sorted(file)
            parts = [part for part in ARCHIVE_PARTS if isinstance(file.get(part), h5py.Group)]
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises all of them
        raise VideoError(f"{path}: a damaged HDF5 file ({error}); copy it again") from error
    if not parts:
        raise VideoError(
            f"{path}: an HDF5 file with {held or 'nothing'} in it, not a frame archive; that has "
            "groups `train` and `test`"
        )
    return [SourceSpec(path, "archive", part) for part in parts]


def _add_ends(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        digest.update(f"{size}\n".encode())
        digest.update(file.read(_MIB))
        file.seek(max(0, size - _MIB))
        digest.update(file.read(_MIB))
