"""LeRobot data sets: made here as their documentation lays them out."""

import json

import numpy as np
import pytest

from ingest.errors import VideoError
from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.store.records import RecordSettings
from ingest.video.open import open_source
from ingest.video.sources import expand

LENGTHS = (12, 7, 20)
FPS = 10
CAMERAS = ("observation.images.top", "observation.images.wrist")
SETTINGS = RecordSettings(size=16)


def shades(camera: int, episode: int) -> list[int]:
    """The brightness of each frame: no two neighbours, cameras or episodes alike."""
    return [60 + 80 * camera + 30 * episode + 4 * (index % 6) for index in range(LENGTHS[episode])]


def pictures(levels: list[int]) -> list[np.ndarray]:
    return [np.full((32, 48, 3), level, np.uint8) for level in levels]


def write_info(root, version: str, video_path: str) -> None:
    features = {camera: {"dtype": "video", "shape": [32, 48, 3]} for camera in CAMERAS}
    features["action"] = {"dtype": "float32", "shape": [2]}
    (root / "meta").mkdir(parents=True)
    info = {
        "codebase_version": version,
        "fps": FPS,
        "total_episodes": len(LENGTHS),
        "chunks_size": 1000,
        "video_path": video_path,
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info))


def version_3(root, media):
    """Two episodes in the first file of each camera, and one in the second."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    write_info(root, "v3.0", path)
    rows = [{"episode_index": n, "length": length} for n, length in enumerate(LENGTHS)]
    for number, camera in enumerate(CAMERAS):
        for file, held in enumerate(((0, 1), (2,))):
            video = root / path.format(video_key=camera, chunk_index=0, file_index=file)
            video.parent.mkdir(parents=True, exist_ok=True)
            levels = [level for episode in held for level in shades(number, episode)]
            media.video(video, pictures(levels), fps=FPS)
            begin = 0.0
            for episode in held:
                length = LENGTHS[episode] / FPS
                rows[episode] |= {
                    f"videos/{camera}/chunk_index": 0,
                    f"videos/{camera}/file_index": file,
                    f"videos/{camera}/from_timestamp": begin,
                    f"videos/{camera}/to_timestamp": begin + length,
                }
                begin += length
    folder = root / "meta/episodes/chunk-000"
    folder.mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "file-000.parquet")
    return root


def version_2(root, media):
    """One file for each episode and camera."""
    path = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    write_info(root, "v2.1", path)
    for number, camera in enumerate(CAMERAS):
        for episode in range(len(LENGTHS)):
            file = path.format(episode_chunk=0, video_key=camera, episode_index=episode)
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            media.video(root / file, pictures(shades(number, episode)), fps=FPS)
    lines = [
        json.dumps({"episode_index": n, "tasks": ["push"], "length": length})
        for n, length in enumerate(LENGTHS)
    ]
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("make", [version_3, version_2])
def test_each_episode_and_camera_is_a_recording(make, media, tmp_path):
    root = make(tmp_path / "pusht", media)
    outcomes = ingest_sources([str(root)], tmp_path / "store", SETTINGS)
    assert [outcome.error for outcome in outcomes] == [None] * 6
    store = open_store(tmp_path / "store")
    for number, camera in enumerate(CAMERAS):
        for episode, length in enumerate(LENGTHS):
            name = f"pusht-episode_{episode:06}-{camera}"
            commit = store.commit(name)
            counted = commit.counters
            assert (counted.decoded, counted.stored, counted.gaps) == (length, length, 1)
            with store.reader(name) as reader:
                frames = reader.read(0, length)
            assert frames.pts_ns.tolist() == [index * 10**9 // FPS for index in range(length)]
            found = frames.images.mean(axis=(1, 2, 3))
            assert np.abs(found - shades(number, episode)).max() < 3
    again = ingest_sources([str(root)], tmp_path / "store", SETTINGS)
    assert {o.recorded.status for o in again if o.recorded} == {"already complete"}
    assert len(again) == 6


def test_a_pass_through_an_episode_may_begin_at_any_frame(media, tmp_path):
    root = version_3(tmp_path / "pusht", media)
    spec = next(s for s in expand(str(root)) if s.part == f"episode_000001-{CAMERAS[0]}")
    with open_source(spec, SETTINGS) as reader:
        whole = list(reader.frames())
        for start in range(LENGTHS[1]):
            part = list(reader.frames(from_pts_ns=whole[start].pts_ns))
            assert [frame.pts_ns for frame in part] == [f.pts_ns for f in whole[start:]]
            assert all(
                np.array_equal(a.image, b.image) for a, b in zip(part, whole[start:], strict=True)
            )
            assert reader.counters.stored == LENGTHS[1] - start
    slower = RecordSettings(size=16, fps=5.0)
    with open_source(spec, slower) as reader:
        assert [f.pts_ns for f in reader.frames()] == [f.pts_ns for f in whole[::2]]


def test_a_data_set_that_cannot_be_read_is_refused(media, tmp_path):
    root = version_2(tmp_path / "pusht", media)
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    for change, message in (
        ({"features": {}}, "without videos"),
        ({"video_path": "videos/{camera}.mp4"}, "other metadata"),
        ({"codebase_version": "v3.0"}, "without episodes"),
        ({"fps": None}, "not that of a LeRobot data set"),
        ({"fps": 0}, "not that of a LeRobot data set"),
        ({"chunks_size": 0}, "not that of a LeRobot data set"),
        ({"video_path": "videos/{video_key.x}.mp4"}, "other metadata"),
    ):
        path.write_text(json.dumps(info | change))
        with pytest.raises(VideoError, match=message):
            expand(str(root))
    path.write_text(json.dumps(info))
    (root / "meta/episodes.jsonl").write_text("{}")
    with pytest.raises(VideoError, match=r"episodes\.jsonl: unreadable"):
        expand(str(root))
