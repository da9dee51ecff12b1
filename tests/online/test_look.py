"""Footage is looked at: its camera, its length, and whether anything moves."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.jobs import ingest_sources
from ingest.open import open_store
from ingest.store.records import RecordSettings
from online.look import Look, look_at

Draw = Callable[[int], np.ndarray]
SIZE, FRAMES, FPS = 64, 60, 10
TEXTURE = (
    np.random.default_rng(0).integers(40, 216, (40, 40, 3), np.uint8).repeat(5, 0).repeat(5, 1)
)


def still(index: int) -> np.ndarray:
    return TEXTURE[:SIZE, :SIZE].copy()


def panned(index: int) -> np.ndarray:
    return TEXTURE[index : index + SIZE, 2 * index : 2 * index + SIZE].copy()


def with_thing(background: Draw) -> Draw:
    def draw(index: int) -> np.ndarray:
        image = background(index)
        left = 4 + (3 * index) % 40
        image[20:34, left : left + 14] = (250, 20, 20)
        return image

    return draw


def looked_at(folder: Path, draw: Draw, frames: int = FRAMES) -> Look:
    with av.open(str(folder / "a.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=FPS, options={"crf": "12"})
        stream.width = stream.height = SIZE
        for index in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(draw(index), format="rgb24")))
        file.mux(stream.encode(None))
    ingest_sources([str(folder / "a.mp4")], folder / "store", RecordSettings(size=SIZE))
    return look_at(open_store(folder / "store"), "a")


@pytest.mark.parametrize(
    ("draw", "moves", "own"),
    [
        (still, False, False),
        (panned, True, False),
        (with_thing(still), False, True),
        (with_thing(panned), True, True),
    ],
)
def test_a_moving_camera_is_told_from_what_moves_before_it(
    tmp_path: Path, draw: Draw, moves: bool, own: bool
) -> None:
    look = looked_at(tmp_path, draw)
    assert look.camera_moves == moves
    assert f"a: 6 s from a {'moving' if moves else 'fixed'} camera" in look.text
    short, *nothing = look.faults
    assert short == "a: 6 s is little to learn objects from; 15 s or more are better"
    assert [fault.startswith("a: nothing was seen to move") for fault in nothing] == [True] * (
        not own
    )


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_footage_of_hardly_any_frames_can_be_looked_at(tmp_path: Path, frames: int) -> None:
    assert len(looked_at(tmp_path, panned, frames).faults) == 2
