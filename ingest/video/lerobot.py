"""LeRobot data sets: where in which file each episode of each camera is.

v3:   meta/episodes/*/*.parquet say where; a file holds many episodes, one after another
v2.1: meta/episodes.jsonl says which there are; a file holds one

The times of an episode begin at 0, as its `timestamp` column does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ingest.errors import VideoError

INFO = Path("meta/info.json")

_OTHER_METADATA = (
    *(KeyError, IndexError, AttributeError, ValueError, TypeError),  # of names in its paths, too
    *(ArithmeticError, msgspec.ValidationError),
)


class _Feature(msgspec.Struct):
    dtype: str


class _Info(msgspec.Struct):
    codebase_version: str
    fps: Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)]
    features: dict[str, _Feature]
    video_path: str | None = None
    chunks_size: Annotated[int, msgspec.Meta(ge=1)] = 1000


class _Episode(msgspec.Struct):
    episode_index: Annotated[int, msgspec.Meta(ge=0)]
    length: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode as one camera saw it."""

    name: str
    video: Path
    length: int
    """Frames, of which the last comes a frame before the end."""
    fps: float
    begin_ns: int = 0
    """When it begins in the video."""

    @property
    def interval_ns(self) -> int:
        """Time between two frames."""
        return round(1e9 / self.fps)

    @property
    def end_ns(self) -> int:
        """When the frame after the last one comes."""
        return self.begin_ns + round(self.length * 1e9 / self.fps)


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a LeRobot data set."""
    return (folder / INFO).is_file()


def episodes(folder: Path) -> list[Episode]:
    """Every episode and camera of a data set; VideoError where it has none that can be read."""
    info = _info(folder / INFO)
    cameras = [key for key, feature in info.features.items() if feature.dtype == "video"]
    if not cameras or info.video_path is None:
        raise VideoError(
            f"{folder}: a LeRobot data set without videos; pictures in parquet files are not read"
        )
    read = _of_files if info.codebase_version.lstrip("v").startswith("2.") else _of_chunks
    try:
        found = list(read(folder, info, cameras))
    except _OTHER_METADATA as error:
        raise VideoError(
            f"{folder}: LeRobot's {info.codebase_version} has other metadata ({error!r}); convert "
            "it to v3.0 or v2.1"
        ) from error
    if not found:
        raise VideoError(f"{folder}: a LeRobot data set without episodes; copy it again whole")
    return found


def _of_files(folder: Path, info: _Info, cameras: list[str]) -> Iterator[Episode]:
    path = folder / "meta/episodes.jsonl"
    try:
        listed = msgspec.json.Decoder(_Episode).decode_lines(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise VideoError(f"{path}: unreadable ({error}); copy it again") from error
    assert info.video_path is not None
    for each in listed:
        for camera in cameras:
            file = info.video_path.format(
                episode_chunk=each.episode_index // info.chunks_size,
                episode_index=each.episode_index,
                video_key=camera,
            )
            yield Episode(
                name=_name(each.episode_index, camera),
                video=folder / file,
                length=each.length,
                fps=info.fps,
            )


def _of_chunks(folder: Path, info: _Info, cameras: list[str]) -> Iterator[Episode]:
    assert info.video_path is not None
    for row in _rows(folder, cameras):
        each = msgspec.convert(row, _Episode)
        for camera in cameras:
            file = info.video_path.format(
                video_key=camera,
                chunk_index=row[f"videos/{camera}/chunk_index"],
                file_index=row[f"videos/{camera}/file_index"],
            )
            yield Episode(
                name=_name(each.episode_index, camera),
                video=folder / file,
                length=each.length,
                fps=info.fps,
                begin_ns=round(row[f"videos/{camera}/from_timestamp"] * 1e9),
            )


def _rows(folder: Path, cameras: list[str]) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise VideoError(
            f"{folder}: LeRobot's v3 needs pyarrow; pip install -e '.[lerobot]'"
        ) from error
    per_camera = ("chunk_index", "file_index", "from_timestamp")
    columns = [f"videos/{camera}/{column}" for camera in cameras for column in per_camera]
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "meta/episodes").glob("*/*.parquet")):
        try:
            table = parquet.read_table(path, columns=["episode_index", "length", *columns])
        except (OSError, ArrowException) as error:
            raise VideoError(f"{path}: unreadable ({error}); copy it again") from error
        rows += table.to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"])


def _info(path: Path) -> _Info:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Info)
    except (OSError, msgspec.DecodeError) as error:
        raise VideoError(f"{path}: not that of a LeRobot data set ({error})") from error


def _name(episode: int, camera: str) -> str:
    return f"episode_{episode:06}-{camera}"
