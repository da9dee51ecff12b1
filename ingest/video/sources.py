"""What the words on a command line mean: files, folders, globs, image folders, data sets, archives.

Every source becomes one recording, with a name that stays the same from one run to the next.
"""

import glob
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ingest.addresses import is_address, is_local_device
from ingest.errors import VideoError
from ingest.store.layout import is_store
from ingest.video.bucket import is_object, videos_at
from ingest.video.lerobot import Episode, episodes, is_dataset
from ingest.video.mask_sources import MaskSource, masks_of_images, named_masks
from ingest.video.masks import SUFFIX as SIDECAR_SUFFIX
from ingest.video.paths import (
    FRAMES_FOLDER,
    GIF,
    PAGED_SUFFIXES,
    VIDEO_SUFFIXES,
    files,
    folders,
    image_files,
    natural_order,
    path_text,
)
from ingest.video.remote import check_address, file_name, not_a_file, place_of

log = logging.getLogger(__name__)

_DESCRIPTION = ".sdp"
"""Suffix of a file that says where a live source sends what."""
ARCHIVE_PARTS = ("train", "test")


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source of one recording."""

    path: Path
    kind: Literal["video", "images", "archive"]
    part: str = ""
    """Group of a frame archive, `train` or `test`, the `track` of a video, or an episode."""
    masks: MaskSource | None = None
    """Where its masks are, if not in a sidecar."""
    address: str = ""
    """Where it is, if not on this machine; `path` is then its name alone."""
    episode: Episode | None = None
    """Which part of a video is read, where it is one of a LeRobot data set."""
    track: int | None = None
    """Which video track is read, from 1 on; None for the main one."""

    @property
    def file(self) -> Path:
        """The file or folder that is read."""
        return self.path if self.episode is None else self.episode.video

    def absolute(self) -> "SourceSpec":
        """The same for a process with another working directory."""
        masks, episode = self.masks, self.episode
        return replace(
            self,
            path=self.path if self.address else self.path.absolute(),
            masks=masks and replace(masks, path=masks.path.absolute()),
            episode=episode and replace(episode, video=episode.video.absolute()),
        )

    @property
    def location(self) -> str:
        """The same as a word: a path, or an address."""
        return self.address or str(self.file)

    @property
    def stem(self) -> str:
        """What it is called: the name of its folder, or of its file without the suffix."""
        is_file = bool(self.address) or self.path.is_file()
        return self.path.stem if is_file else self.path.resolve().name

    def __str__(self) -> str:
        path = place_of(self.address) if self.address else path_text(self.path)
        return f"{path} ({self.part})" if self.part else path


def expand(source: str) -> list[SourceSpec]:
    """Turn one word into its sources, in natural order; VideoError where it names none."""
    if is_address(source):
        if is_object(source):
            addresses = videos_at(source)
        else:
            check_address(source)
            addresses = [source]
        return [SourceSpec(Path(file_name(each)), "video", address=each) for each in addresses]
    path = Path(source)
    if not path.exists() and glob.has_magic(source):
        matched = glob.glob(source, recursive=True)  # noqa: PTH207 - absolute too
        matches = sorted(map(Path, matched), key=natural_order)
        found = [spec for match in matches for spec in _of_match(match)]
        if not found:
            raise VideoError(f"{source}: no file or folder of images matches; check the pattern")
        return found
    if source == "-":
        raise VideoError(
            "-: standard input cannot be read again to continue; name a file, or take what comes "
            "with `setcon capture -`"
        )
    if not path.exists():
        if is_local_device(source):
            raise not_a_file(source)
        raise VideoError(f"{source}: no such file or folder; check the path")
    return _of_folder(path) if path.is_dir() else _of_file(path)


def with_track(specs: Sequence[SourceSpec], track: int) -> list[SourceSpec]:
    """The same videos, of which another track is read."""
    return [
        replace(spec, track=track, part=f"track{track}")
        if spec.kind == "video" and spec.episode is None
        else spec
        for spec in specs
    ]


def with_masks(specs: Sequence[SourceSpec], path: Path) -> list[SourceSpec | VideoError]:
    """Each source with the masks that `path` has for it, or the reason why there are none."""
    alone = len(specs) == 1
    found: list[SourceSpec | VideoError] = []
    for spec in specs:
        try:
            if spec.kind == "archive" or spec.episode is not None:
                raise VideoError(f"{spec}: archives and episodes take no masks; leave out --masks")
            masks = named_masks(path, spec.stem, alone=alone)
            found.append(replace(spec, masks=masks))
        except VideoError as error:
            found.append(error)
    return found


def _of_match(path: Path) -> list[SourceSpec]:
    """What one match of a glob is: a file that is not a sidecar, or a folder of images."""
    if path.is_dir():
        return [_of_images(path)] if image_files(path) else []
    is_passed_over = path.name.endswith(SIDECAR_SUFFIX) or path.name.startswith("._")
    return _of_file(path) if path.is_file() and not is_passed_over else []


def _of_folder(folder: Path) -> list[SourceSpec]:
    if is_dataset(folder):
        return [
            SourceSpec(folder, "video", episode.name, episode=episode)
            for episode in episodes(folder)
        ]
    if (folder / FRAMES_FOLDER).is_dir():
        return _of_tree(folder / FRAMES_FOLDER)
    videos, gifs = files(folder, VIDEO_SUFFIXES), files(folder, frozenset({GIF}))
    images = image_files(folder)
    if videos and images:
        log.warning(
            "%s: %d images next to %d videos are left out; name the folder of images by itself",
            folder,
            len(images),
            len(videos),
        )
    if gifs and images:
        log.warning(
            "%s: %d GIF files next to images are left out; name them by themselves",
            folder,
            len(gifs),
        )
    if videos or (gifs and not images):
        return [SourceSpec(path, "video") for path in sorted([*videos, *gifs], key=natural_order)]
    if images:
        return [_of_images(folder)]
    if found := _of_folders(folders(folder)):
        return found
    held = "is a store already" if is_store(folder) else "has no videos or images"
    raise VideoError(
        f"{folder}: {held}; name a video, or a folder of videos, of images or of folders of images"
    )


def _of_tree(frames: Path) -> list[SourceSpec]:
    """The sequences of JPEGImages, as DAVIS and YouTube-VIS have them: NAME, or 480p/NAME."""
    if image_files(frames):
        return [_of_images(frames)]
    if found := _of_folders(folders(frames)):
        return found
    sizes = {size.name: specs for size in folders(frames) if (specs := _of_folders(folders(size)))}
    if not sizes:
        raise VideoError(f"{frames}: no folders of images in it; name the folder that has them")
    chosen, *others = sizes
    if others:
        log.warning("%s: %s is taken, not %s; name another to have it", frames, chosen, others)
    return sizes[chosen]


def _of_folders(candidates: Sequence[Path]) -> list[SourceSpec]:
    return [_of_images(folder) for folder in candidates if image_files(folder)]


def _of_images(folder: Path) -> SourceSpec:
    return SourceSpec(folder, "images", masks=masks_of_images(folder))


def _of_file(path: Path) -> list[SourceSpec]:
    if not path.is_file():  # opening a pipe would wait forever
        raise not_a_file(str(path))
    if path.suffix.lower() == _DESCRIPTION:
        raise not_a_file(str(path))
    if path.suffix.lower() in PAGED_SUFFIXES:
        return [SourceSpec(path, "images")]
    import h5py  # few sources are HDF5 files, and it takes its time

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
