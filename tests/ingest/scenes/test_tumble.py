"""What the scene tumble shows; what every scene promises is tested with the others."""

from pathlib import Path

import numpy as np
import pytest

from ingest.errors import IngestError
from ingest.frame import Frames
from ingest.scenes import tumble
from ingest.scenes.bullet import Mesh
from ingest.scenes.tumble import TumbleConfig, tumble_blocks
from ingest.scenes.video import render_scene


def drawn(**fields: float) -> Frames:
    pytest.importorskip("pybullet")
    small = {"size": 32, "num_frames": 12, "episode_frames": 4}
    return Frames.join(list(tumble_blocks(TumbleConfig(**small | fields))))  # type: ignore[arg-type]


def masks_of(frames: Frames) -> np.ndarray:
    assert frames.masks is not None
    return frames.masks


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 8}, "size must be at least 16, got 8"),
        ({"min_objects": 0}, r"min_objects must lie in 1\.\.12, got 0"),
        ({"max_objects": 13}, r"max_objects must lie in 3\.\.12, got 13"),
        ({"min_objects": 5, "max_objects": 4}, r"max_objects must lie in 5\.\.12, got 4"),
        ({"episode_frames": 0}, "episode_frames must be at least 1, got 0"),
        ({"worlds": -1}, "worlds must be at least 0, got -1"),
        ({"camera": 1.5}, r"camera must lie in 0\.\.1, got 1\.5"),
        ({"camera": float("nan")}, r"camera must lie in 0\.\.1, got nan"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_value(
    fields: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TumbleConfig(**fields)  # type: ignore[arg-type]


def test_without_pybullet_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.scenes.bullet.find_spec", lambda name: None)
    with pytest.raises(IngestError, match=r"pip install -e '\.\[tumble\]'"):
        render_scene(TumbleConfig(num_frames=2), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_rendering_again_writes_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("pybullet")
    config = TumbleConfig(num_frames=30, episode_frames=12, size=48, seed=5)
    written = set()
    for _ in range(2):
        rendered = render_scene(config, tmp_path / "tumble.mp4")
        written.add((rendered.video.read_bytes(), rendered.sidecar.read_bytes()))
    assert len(written) == 1


def test_two_recordings_drawn_in_turns_do_not_disturb_each_other() -> None:
    pytest.importorskip("pybullet")
    configs = [TumbleConfig(num_frames=8, episode_frames=8, size=200, seed=s) for s in (1, 2)]
    alone = [Frames.join(list(tumble_blocks(config))) for config in configs]
    turns = list(zip(*(tumble_blocks(config) for config in configs), strict=True))
    assert len(turns) > 1  # blocks, between which the other is drawn
    for k in (0, 1):
        together = Frames.join([blocks[k] for blocks in turns])
        np.testing.assert_array_equal(together.images, alone[k].images)
        np.testing.assert_array_equal(masks_of(together), masks_of(alone[k]))


def test_an_episode_has_as_many_objects_as_it_may() -> None:
    frames = drawn(num_frames=6, episode_frames=1, min_objects=2, max_objects=4)
    counts = [set(np.unique(labels)) - {0} for labels in masks_of(frames)]
    assert max(map(max, counts)) == 4
    assert all(max(labels) <= 4 for labels in counts)
    assert np.mean([len(labels) for labels in counts]) > 2


def test_objects_move_and_come_to_rest() -> None:
    masks = masks_of(drawn(num_frames=50, episode_frames=50, camera=0.0))
    changed = (masks[1:] != masks[:-1]).sum(axis=(1, 2))
    assert changed[:8].min() > 20
    assert changed[-8:].max() < 5


def test_only_objects_change_what_a_fixed_camera_sees() -> None:
    frames = drawn(num_frames=20, episode_frames=20, camera=0.0)
    is_background = masks_of(frames) == 0
    seen_in_both = is_background[1:] & is_background[:-1]
    is_same = (frames.images[1:] == frames.images[:-1]).all(axis=-1)
    assert is_same[seen_in_both].all()
    assert not is_same.all()


def test_a_moving_camera_moves_the_background() -> None:
    frames = drawn(num_frames=10, episode_frames=10)
    is_background = masks_of(frames) == 0
    seen_in_both = is_background[0] & is_background[-1]
    is_same = (frames.images[0] == frames.images[-1]).all(axis=-1)
    assert is_same[seen_in_both].mean() < 0.3


def test_episodes_that_share_a_world_show_one_floor() -> None:
    def floors(worlds: int) -> np.ndarray:
        frames = drawn(num_frames=4, episode_frames=1, worlds=worlds, seed=1)
        below, is_floor = frames.images[:, 20:], masks_of(frames)[:, 20:] == 0
        return np.stack(
            [image[here].mean(axis=0) for image, here in zip(below, is_floor, strict=True)]
        )

    def apart(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.abs(first - second).max())

    shared, alternating, new = (floors(worlds) for worlds in (1, 2, 0))
    assert apart(shared, shared[0]) < 20
    assert apart(alternating[:2], alternating[2:]) < 20 < apart(alternating[0], alternating[1])
    assert apart(new[1:], new[0]) > 20
    np.testing.assert_array_equal(new[0], shared[0])


@pytest.mark.parametrize("mesh", tumble.MESHES, ids=lambda mesh: Path(mesh.file).stem)
def test_every_mesh_can_be_seen(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tumble, "MESHES", (mesh,))
    labels = masks_of(drawn(num_frames=1, min_objects=3, max_objects=3))
    assert len(np.unique(labels)) > 1
    assert (labels > 0).sum() > 5
