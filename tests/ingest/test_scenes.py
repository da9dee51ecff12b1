import math
import os
import signal
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from itertools import islice, pairwise
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingest
from ingest.frame import Frames
from ingest.scenes import (
    SCENES,
    BallsConfig,
    GridworldConfig,
    QuiltConfig,
    Scene,
    SevenObjectConfig,
    SpritesConfig,
    ThreeObjectConfig,
    scene_blocks,
    scene_frames,
    scene_name,
)
from ingest.scenes.balls import BallTable, ball_colours, ball_trajectory
from ingest.scenes.video import render_scene
from ingest.video.masks import MaskSidecar, find_sidecar

needs_pybullet = pytest.mark.skipif(find_spec("pybullet") is None, reason="needs pybullet")
EVERY_SCENE = [
    pytest.param(name, marks=needs_pybullet) if name == "tumble" else name
    for name in sorted(SCENES)
]


def scene_of(name: str, num_frames: int, **fields: int) -> Scene:
    """A scene with these fields; in 3D it has a third of the frames, as drawing takes long."""
    if name == "tumble":  # blocks of 28 frames
        return SCENES[name](**{"size": 96, "num_frames": num_frames // 3} | fields)
    return SCENES[name](num_frames=num_frames, **fields)


def drawn(config: Scene) -> Frames:
    return Frames.join(list(scene_blocks(config)))


def masks_of(frames: Frames) -> np.ndarray:
    assert frames.masks is not None
    return frames.masks


def decoded(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.mark.parametrize("name", EVERY_SCENE)
def test_equal_configurations_give_equal_recordings_and_another_seed_another(name: str) -> None:
    first, again = drawn(scene_of(name, num_frames=90)), drawn(scene_of(name, num_frames=90))
    other = drawn(scene_of(name, num_frames=90, seed=1))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(masks_of(first), masks_of(again))
    assert (first.images != other.images).any()


@pytest.mark.parametrize("name", EVERY_SCENE)
def test_a_longer_recording_begins_with_the_shorter_one(name: str) -> None:
    short, long = drawn(scene_of(name, num_frames=70)), drawn(scene_of(name, num_frames=150))
    for field in ("images", "pts_ns", "gap", "masks"):
        np.testing.assert_array_equal(getattr(short, field), getattr(long, field)[: len(short)])


@pytest.mark.parametrize("name", EVERY_SCENE)
def test_frames_one_by_one_are_those_of_the_blocks(name: str) -> None:
    config = scene_of(name, num_frames=90, fps=25)
    blocks, frames = drawn(config), Frames.stack(list(scene_frames(config)))
    for field in ("images", "pts_ns", "gap", "masks"):
        np.testing.assert_array_equal(getattr(blocks, field), getattr(frames, field))
    assert len(blocks) == config.num_frames
    assert blocks.pts_ns[[0, 1, 25]].tolist() == [0, 40_000_000, 1_000_000_000]
    assert scene_name(config) == name


def test_memory_does_not_grow_with_the_recording() -> None:
    def peak(num_frames: int) -> int:
        tracemalloc.start()
        for _ in scene_blocks(BallsConfig(num_frames=num_frames)):
            pass
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    assert peak(1200) < 1.2 * peak(300)


@pytest.mark.parametrize(
    ("config", "starts"),
    [
        (BallsConfig(num_frames=30), [0]),
        (BallsConfig(num_frames=30, episode_frames=12), [0, 12, 24]),
        (GridworldConfig(num_frames=20), [0, 8, 16]),
        (GridworldConfig(num_frames=20, episode_frames=None), [0]),
        (SpritesConfig(num_frames=20), [0]),
        (ThreeObjectConfig(num_frames=20), [0]),
    ],
)
def test_a_gap_marks_the_first_frame_and_every_new_episode(
    config: Scene, starts: list[int]
) -> None:
    assert np.flatnonzero(drawn(config).gap).tolist() == starts


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    num_balls=st.integers(1, 6),
    radius=st.floats(0.02, 0.11),
    speed=st.floats(0.001, 0.5),
    seed=st.integers(0, 1000),
)
def test_balls_keep_their_energy_stay_inside_and_never_overlap(
    num_balls: int, radius: float, speed: float, seed: int
) -> None:
    config = BallsConfig(num_balls=num_balls, radius=radius, speed=speed)
    table = BallTable.drawn(config, np.random.default_rng(seed))
    first, second = np.triu_indices(num_balls, k=1)
    for _ in range(200):
        table.advance(1.0)
        distances = np.hypot(*(table.centres[first] - table.centres[second]).T)
        assert (distances >= 2 * radius - 1e-8).all()
        assert (table.centres >= radius - 1e-8).all()
        assert (table.centres <= 1 - radius + 1e-8).all()
    assert (table.velocities**2).sum() == pytest.approx(num_balls * speed**2, rel=1e-4)


def test_the_last_bit_of_a_processor_does_not_make_another_recording() -> None:
    rng = np.random.default_rng(0)
    plain = BallTable.drawn(BallsConfig(), np.random.default_rng(3))
    trembling = BallTable.drawn(BallsConfig(), np.random.default_rng(3))
    for _ in range(3000):
        plain.advance(1.0)
        trembling.centres *= 1 + rng.choice([-1, 1], trembling.centres.shape) * 2.0**-52
        trembling.velocities *= 1 + rng.choice([-1, 1], trembling.velocities.shape) * 2.0**-52
        trembling.advance(1.0)
        assert np.allclose(plain.centres, trembling.centres, rtol=0, atol=1e-8)


def test_balls_start_inside_and_apart() -> None:
    config = BallsConfig(num_frames=300, episode_frames=1, num_balls=4, radius=0.14)
    centres = np.stack(list(ball_trajectory(config)))
    first, second = np.triu_indices(4, k=1)
    assert np.linalg.norm(centres[:, first] - centres[:, second], axis=-1).min() > 0.28
    assert centres.min() >= 0.14
    assert centres.max() <= 0.86


def test_balls_that_meet_head_on_swap_their_velocities() -> None:
    centres = np.array([[0.3, 0.5], [0.7, 0.5]])
    table = BallTable(centres, np.array([[0.1, 0.0], [-0.05, 0.0]]), radius=0.05)
    table.advance(3.0)  # they touch after 0.3 / 0.15 = 2 frames, at 0.5 and 0.6
    np.testing.assert_allclose(table.velocities, [[-0.05, 0.0], [0.1, 0.0]], atol=1e-12)
    np.testing.assert_allclose(table.centres, [[0.45, 0.5], [0.7, 0.5]], atol=1e-12)


def test_a_ball_struck_off_centre_moves_along_the_line_between_the_centres() -> None:
    # at contact the centres are (0.4, 0.5) and (0.5, 0.6): 45 degrees, so half of the speed passes
    centres = np.array([[0.2, 0.5], [0.5, 0.6]])
    table = BallTable(centres, np.array([[0.1, 0.0], [0.0, 0.0]]), radius=np.sqrt(0.5) / 10)
    table.advance(2.5)
    np.testing.assert_allclose(table.velocities, [[0.05, -0.05], [0.05, 0.05]], atol=1e-12)


def test_a_fast_ball_bounces_several_times_within_one_frame() -> None:
    table = BallTable(np.array([[0.5, 0.5]]), np.array([[2.0, 0.0]]), radius=0.25)
    table.advance(1.0)  # 0.25 to the wall, three times 0.5 across, 0.25 back
    np.testing.assert_allclose(table.centres, [[0.5, 0.5]], atol=1e-12)


def test_drawn_balls_match_discs_counted_in_subpixels() -> None:
    config = BallsConfig(num_frames=12, size=32, seed=2)
    size, fine = config.size, 16
    points = (np.arange(size * fine) + 0.5) / (size * fine)
    expected = np.zeros((12, size, size, 3))
    for frame, centres in zip(expected, ball_trajectory(config), strict=True):
        for (x, y), colour in zip(centres, ball_colours(config), strict=True):
            inside = np.hypot(points - x, (points - y)[:, None]) <= config.radius
            covered = inside.reshape(size, fine, size, fine).mean(axis=(1, 3))
            frame += covered[..., None] * colour
    assert np.abs(drawn(config).images / 255 - expected).max() < 0.1


def test_the_mask_names_the_ball_whose_colour_fills_half_of_the_pixel() -> None:
    config = BallsConfig(num_frames=100, seed=3)
    frames = drawn(config)
    coverage = frames.images / 255 @ np.linalg.inv(ball_colours(config))
    largest = coverage.max(axis=-1)
    expected = np.where(largest >= 0.5, coverage.argmax(axis=-1) + 1, 0)
    clear = np.abs(largest - 0.5) > 0.02  # 8-bit levels do not tell which side of a half
    np.testing.assert_array_equal(masks_of(frames)[clear], expected[clear])
    area = np.pi * (config.radius * config.size) ** 2
    sizes = [(masks_of(frames) == label).sum(axis=(1, 2)) for label in (1, 2, 3)]
    np.testing.assert_allclose(sizes, area, rtol=0.1)


def test_ball_colours_are_drawn_once_or_pinned() -> None:
    pinned = ball_colours(BallsConfig(hue=0.0, seed=7))
    np.testing.assert_allclose(pinned, np.eye(3), atol=1e-12)
    assert np.abs(ball_colours(BallsConfig(seed=7)) - ball_colours(BallsConfig(seed=8))).max() > 0


def test_grid_objects_step_one_cell_per_frame_along_one_line() -> None:
    config = GridworldConfig(num_frames=400, cell_pixels=4)
    cells = masks_of(drawn(config))[:, ::4, ::4]
    assert cells.shape[1:] == (5, 5)
    turned = 0
    for episode in cells.reshape(-1, 8, 5, 5):
        path = np.argwhere(episode == config.num_objects)[:, 1:]  # in front, so always seen
        assert len(path) == 8
        steps = np.diff(path, axis=0)
        assert (np.abs(steps).sum(axis=1) == 1).all()
        assert (np.ptp(path, axis=0) == 0).any()
        turns = [(a != b).any() for a, b in pairwise(steps)]
        at_border = (path[1:-1] % 4 == 0)[:, np.ptp(path, axis=0) > 0].ravel()
        assert turns == at_border.tolist()
        turned += sum(turns)
        for label in (1, 2):
            assert (np.ptp(np.argwhere(episode == label)[:, 1:], axis=0) == 0).any()
    assert turned > 0


def test_grid_hues_are_equally_spaced_and_change_with_the_episode() -> None:
    config = GridworldConfig(num_frames=160, cell_pixels=4)
    frames = drawn(config)
    offsets = set()
    for index in range(0, 160, 8):
        seen = [
            frames.images[index][masks_of(frames)[index] == label].mean(axis=0)
            for label in (1, 2, 3)  # objects never start in a shared cell
        ]
        # three hues a third apart add up to grey: red, green and blue each occur as often
        np.testing.assert_allclose(np.sum(seen, axis=0), np.sum(seen) / 3, atol=3)
        assert all(colour.max() == 255 and colour.min() == 0 for colour in seen)
        offsets.add(tuple(seen[0]))
    assert len(offsets) == 20


def test_sprites_in_front_hide_those_behind() -> None:
    alone = drawn(SpritesConfig(num_frames=200, num_sprites=1))
    crowd = drawn(SpritesConfig(num_frames=200, num_sprites=5))
    whole, seen = masks_of(alone) == 1, masks_of(crowd) == 1
    assert not (seen & ~whole).any()
    assert (masks_of(crowd)[whole & ~seen] > 1).all()
    assert (whole & ~seen).any()
    assert set(np.unique(masks_of(crowd))) == {0, 1, 2, 3, 4, 5}
    untouched = (alone.images == crowd.images).all(axis=-1)
    assert untouched[seen].mean() > 0.9  # the rest are the soft edges of sprites in front


def test_sprites_of_the_same_colours_move_as_others_do_and_mix_the_same_two() -> None:
    other = drawn(SpritesConfig(num_frames=50))
    same = drawn(SpritesConfig(num_frames=50, same_colours=True))
    np.testing.assert_array_equal(masks_of(same), masks_of(other))

    def along_one_line(frames: Frames) -> float:
        pixels = frames.images[masks_of(frames) > 0].astype(np.float64)
        spread = np.linalg.eigvalsh(np.cov(pixels.T))
        return spread[-1] / spread.sum()

    assert along_one_line(same) > 0.9 > along_one_line(other)


def test_sprites_are_never_cut_off_by_the_frame() -> None:
    for seed in range(5):  # one of them each of the shapes a permutation starts with
        frames = drawn(SpritesConfig(num_frames=400, num_sprites=1, speed=0.03, seed=seed))
        sizes = masks_of(frames).sum(axis=(1, 2), dtype=np.int64)
        assert np.ptp(sizes) < 0.2 * sizes.mean()


def test_sprites_and_background_move_on_in_every_frame() -> None:
    frames = drawn(SpritesConfig(num_frames=60))
    changed = (frames.images[1:] != frames.images[:-1]).any(axis=-1)
    background = masks_of(frames)[1:] == 0
    assert (changed & background).any(axis=(1, 2)).all()
    assert (changed & ~background).any(axis=(1, 2)).all()


def areas(frames: Frames, label: int) -> np.ndarray:
    return (masks_of(frames) == label).sum(axis=(1, 2), dtype=np.int64)


def test_what_lies_on_the_table_does_not_move_and_hides_nothing() -> None:
    still = drawn(SevenObjectConfig(num_frames=40, hands=0, camera=0.0, size=64))
    assert (still.images == still.images[0]).all()
    alone = drawn(SevenObjectConfig(num_frames=1, num_objects=1, camera=0.0, size=64))
    shown = areas(drawn(SevenObjectConfig(num_frames=1, camera=0.0, size=64)), 1)
    assert areas(alone, 1) == pytest.approx(shown, rel=0.1)


def test_a_moving_camera_moves_what_lies_and_the_table_alike() -> None:
    panned = drawn(ThreeObjectConfig(num_frames=120, hands=0, size=64))
    changed = (panned.images[1:] != panned.images[:-1]).any(axis=-1)
    on_table = masks_of(panned)[1:] == 0
    assert (changed & on_table).any(axis=(1, 2)).all()
    assert (changed & ~on_table).any(axis=(1, 2)).all()


def test_things_are_carried_over_others_set_down_whole_and_all_of_them_in_time() -> None:
    frames = drawn(SevenObjectConfig(num_frames=3000, camera=0.0, size=32))
    before, after = masks_of(frames)[:-1], masks_of(frames)[1:]
    moving = [((before != after) & (before == label)).any(axis=(1, 2)) for label in range(1, 8)]
    for label in range(1, 8):
        seen = areas(frames, label)
        assert seen.min() < 0.9 * np.median(seen)  # hidden in part by something carried
        assert (np.abs(seen - np.median(seen)) < 0.15 * np.median(seen)).mean() > 0.5
        places = np.argwhere(masks_of(frames) == label)
        assert np.ptp(places[:, 1]) > 16
        assert np.ptp(places[:, 2]) > 16
    # two are carried at most; one that lies changes only where another passes over it
    assert 1 < np.sum(moving, axis=0).mean() < 4


def test_no_colour_of_the_quilt_s_objects_is_theirs_alone() -> None:
    frames = drawn(QuiltConfig(num_frames=200, seed=2))
    coarse, on_object = frames.images // 32, masks_of(frames) > 0
    table = {tuple(colour) for colour in coarse[~on_object].reshape(-1, 3)[::7].tolist()}
    for label in range(1, 5):
        colours, counts = np.unique(coarse[masks_of(frames) == label], axis=0, return_counts=True)
        (first, second) = colours[np.argsort(counts)[-2:]].tolist()
        assert {tuple(first), tuple(second)} <= table


@pytest.mark.parametrize("name", EVERY_SCENE)
def test_a_rendered_video_decodes_to_the_frames_that_were_drawn(name: str, tmp_path: Path) -> None:
    config = scene_of(name, num_frames=150, seed=4)
    frames = drawn(config)
    calls: list[int] = []
    rendered = render_scene(config, tmp_path / "scene.mp4", progress=calls.append)
    assert rendered.num_frames == calls[-1] == config.num_frames
    images = decoded(rendered.video)
    assert images.shape == frames.images.shape
    for label in range(masks_of(frames).max() + 1):
        here = masks_of(frames) == label
        bias = images[here].mean(axis=0) - frames.images[here].mean(axis=0)
        assert np.abs(bias).max() < 4
    assert np.abs(images.astype(int) - frames.images).mean() < 4


def test_the_inside_of_a_ball_keeps_its_colour(tmp_path: Path) -> None:
    config = BallsConfig(num_frames=120, seed=5)
    images = decoded(render_scene(config, tmp_path / "balls.mp4").video)
    frames = drawn(config)
    for label, colour in enumerate(np.rint(255 * ball_colours(config)), start=1):
        inside = (masks_of(frames) == label) & (frames.images == colour).all(axis=-1)
        errors = np.abs(images[inside] - colour)
        assert inside.sum() > 1000
        assert np.median(errors) <= 4
        assert np.quantile(errors, 0.95) <= 16


def test_grid_cells_averaged_to_one_pixel_keep_their_colour(tmp_path: Path) -> None:
    config = GridworldConfig(num_frames=160)
    images = decoded(render_scene(config, tmp_path / "grid.mp4").video)
    cells = images.reshape(160, 5, 16, 5, 16, 3).mean(axis=(2, 4))
    assert np.abs(cells - drawn(config).images[:, ::16, ::16]).max() < 4


def test_the_video_says_how_its_colours_are_coded(tmp_path: Path) -> None:
    rendered = render_scene(BallsConfig(num_frames=5), tmp_path / "balls.mp4")
    with av.open(rendered.video) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert (frame.format.name, context.name) == ("yuv444p", "h264")
        assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited
        assert (context.color_primaries, context.color_trc) == (1, 1)


@pytest.mark.parametrize("fps", [24, 30, 59])
def test_the_sidecar_holds_the_masks_times_and_gaps_of_the_video(tmp_path: Path, fps: int) -> None:
    config = BallsConfig(num_frames=70, episode_frames=12, fps=fps)
    frames = drawn(config)
    rendered = render_scene(config, tmp_path / "a.b.mp4")
    assert rendered.sidecar == find_sidecar(rendered.video) == tmp_path / "a.b.masks.h5"
    with h5py.File(rendered.sidecar) as sidecar:
        for name, expected in (("masks", frames.masks), ("pts_ns", frames.pts_ns)):
            np.testing.assert_array_equal(sidecar[name][:], expected)
        np.testing.assert_array_equal(sidecar["gap"][:], frames.gap)
        assert sidecar.attrs["scene"] == "balls"
    with av.open(rendered.video) as container:
        seconds = [f.pts * f.time_base for f in container.decode(video=0)]
    times_ns = [int(s * 1_000_000_000) for s in seconds]
    assert times_ns == frames.pts_ns.tolist()
    found = MaskSidecar(rendered.sidecar)
    assert [found.row(pts_ns=pts_ns, index=0) for pts_ns in times_ns] == list(range(70))
    assert [found.gap(row) for row in range(70)] == frames.gap.tolist()
    np.testing.assert_array_equal(found.labels(69), masks_of(frames)[69])
    found.close()


def test_rendering_again_writes_the_same_bytes(tmp_path: Path) -> None:
    written = set()
    for _ in range(8):
        rendered = render_scene(SpritesConfig(num_frames=40), tmp_path / "sprites.mp4")
        written.add((rendered.video.read_bytes(), rendered.sidecar.read_bytes()))
    assert len(written) == 1


def test_a_failing_writer_leaves_the_pair_that_was_there(tmp_path: Path) -> None:
    def fail(written: int) -> None:
        raise RuntimeError(f"stopped after {written}")

    path = tmp_path / "balls.mp4"
    with pytest.raises(RuntimeError, match="stopped after"):
        render_scene(BallsConfig(num_frames=100), path, progress=fail)
    assert list(tmp_path.iterdir()) == []
    old = render_scene(BallsConfig(num_frames=20), path)
    before = old.video.read_bytes(), old.sidecar.read_bytes()
    with pytest.raises(RuntimeError, match="stopped after"):
        render_scene(BallsConfig(num_frames=100), path, progress=fail)
    assert (old.video.read_bytes(), old.sidecar.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from ingest.scenes.video import render_scene
from ingest.scenes import BallsConfig

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

moment, left = sys.argv[2], int(sys.argv[3])
def watch(event, args):
    global left
    if event in ("os.remove", "os.rename"):
        left -= 1
        if left < 0:
            die()
if moment == "publishing":
    sys.addaudithook(watch)
render_scene(
    BallsConfig(num_frames=100, seed=1),
    Path(sys.argv[1]),
    progress=die if moment == "writing" else None,
)
"""


@pytest.mark.parametrize(
    ("moment", "steps", "left"),
    [("writing", 0, 20), ("publishing", 0, 20), ("publishing", 1, None), ("publishing", 2, None)],
)
def test_wherever_the_writer_is_killed_a_video_has_its_own_masks(
    tmp_path: Path, moment: str, steps: int, left: int | None
) -> None:
    path = tmp_path / "balls.mp4"
    render_scene(BallsConfig(num_frames=20), path)
    root = str(Path(ingest.__path__[0]).parent)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, str(path), moment, str(steps)],
        env={**os.environ, "PYTHONPATH": root},
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    if left is None:
        assert not path.exists()
    else:
        with h5py.File(path.with_suffix(".masks.h5")) as sidecar:
            assert len(decoded(path)) == len(sidecar["masks"]) == left
    render_scene(BallsConfig(num_frames=10), path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["balls.masks.h5", "balls.mp4"]


def test_a_path_that_cannot_be_written_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"movie\.avi: a scene is written as \.mp4"):
        render_scene(BallsConfig(), tmp_path / "movie.avi")
    with pytest.raises(FileNotFoundError, match="absent"):
        render_scene(BallsConfig(), tmp_path / "absent" / "movie.mp4")


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (BallsConfig, {"num_frames": 0}, "num_frames must be at least 1, got 0"),
        (BallsConfig, {"fps": 0}, r"fps must lie in 1\.\.1000, got 0"),
        (BallsConfig, {"seed": -1}, "seed must be at least 0, got -1"),
        (BallsConfig, {"size": 8}, "size must be at least 16, got 8"),
        (BallsConfig, {"num_balls": 9}, r"fill at most 0\.25 of the frame, got 0\.41"),
        (BallsConfig, {"radius": math.nan}, "radius must be above 0, got nan"),
        (BallsConfig, {"speed": math.nan}, r"speed must lie in 0\.\.1, got nan"),
        (BallsConfig, {"hue": 1.5}, r"hue must lie in 0\.\.1, got 1\.5"),
        (BallsConfig, {"hue": math.nan}, r"hue must lie in 0\.\.1, got nan"),
        (BallsConfig, {"episode_frames": 0}, "episode_frames must be at least 1, got 0"),
        (GridworldConfig, {"cells": 1}, "cells must be at least 2, got 1"),
        (
            GridworldConfig,
            {"num_objects": 26},
            "num_objects must fit the 25 cells .*, got 26",
        ),
        (GridworldConfig, {"episode_frames": 0}, "episode_frames must be at least 1, got 0"),
        (GridworldConfig, {"cells": 2, "cell_pixels": 4}, r"cell_pixels must be .* 16, got 8"),
        (SpritesConfig, {"num_sprites": 6}, r"num_sprites must lie in 1\.\.5, got 6"),
        (SpritesConfig, {"min_radius": math.nan}, "min_radius must be above 0, got nan"),
        (SpritesConfig, {"max_radius": 0.1}, r"max_radius must be at least 0\.12, got 0\.1"),
        (SpritesConfig, {"max_radius": 0.5}, r"max_radius must be below 0\.5, got 0\.5"),
        (SpritesConfig, {"max_radius": math.nan}, r"max_radius must be .*, got nan"),
        (SpritesConfig, {"spin": -0.1}, r"spin must be at least 0, got -0\.1"),
        (ThreeObjectConfig, {"num_objects": 8}, r"num_objects must lie in 1\.\.7, got 8"),
        (ThreeObjectConfig, {"num_objects": 7}, r"cover at most 0\.3 of the table, got 0\.49"),
        (ThreeObjectConfig, {"max_radius": 0.5}, r"max_radius must be below 0\.5, got 0\.5"),
        (ThreeObjectConfig, {"speed": 0.0}, r"speed must be above 0, got 0\.0"),
        (SevenObjectConfig, {"hands": -1}, "hands must be at least 0, got -1"),
        (SevenObjectConfig, {"camera": -1.0}, r"camera must lie in 0\.\.3, got -1\.0"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_value(
    kind: type[Scene], fields: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**fields)  # type: ignore[arg-type]


def test_one_frame_is_a_recording(tmp_path: Path) -> None:
    rendered = render_scene(BallsConfig(num_frames=1), tmp_path / "one.mp4")
    assert len(decoded(rendered.video)) == 1
    assert len(list(islice(scene_frames(BallsConfig(num_frames=1)), 5))) == 1
