import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ingest.frame import UNKNOWN_LABEL
from online.reports.figures import (
    MARGIN,
    PAPER,
    TILE,
    draw_hero,
    hero_figure,
    panel_figure,
    split_names,
    tile_size,
)
from online.reports.tiles import (
    GROUND,
    SLATE,
    UNKNOWN_GREY,
    attention_segments,
    frame_tiles,
    match_colours,
    slot_colours,
)
from online.scores.evaluation import Panels

FRAME_COLOUR = (3, 201, 77)


def quarters(side: int) -> np.ndarray:
    """Labels 0..3, one for each quarter of a square."""
    half = np.arange(side) * 2 // side
    return (2 * half[:, None] + half[None, :]).astype(np.int64)


def make_panels(*, frames: int = 3, slots: int = 4, side: int = 32, truth: bool = True) -> Panels:
    """Slot k holds quarter k % 4; every picture has a colour of its own."""
    labels = np.broadcast_to(quarters(side), (frames, side, side))
    alphas = (labels[:, None] == np.arange(slots)[None, :, None, None]).astype(np.float32)

    def solid(*colour: int) -> np.ndarray:
        return np.full((frames, side, side, 3), colour, dtype=np.uint8)

    return Panels(
        names=[f"balls {i / 10:.1f} s" for i in range(frames)],
        frames=solid(*FRAME_COLOUR),
        truth=labels.astype(np.uint8) if truth else None,
        reconstruction=solid(11, 12, 213),
        predicted=solid(214, 15, 16),
        untrained=solid(17, 218, 219),
        slots=np.stack([solid(20 + k, 221, 22) for k in range(slots)], axis=1),
        alphas=alphas,
        attention=alphas[:, :, ::4, ::4],
    )


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.mode == "RGB"
    return np.asarray(image)


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == np.array(colour)).all(axis=-1).sum())


def test_every_panel_is_there_once_per_frame_in_its_size() -> None:
    image = pixels(panel_figure(make_panels(frames=3)))
    size = tile_size(32, 32)
    large = size.width * size.height * 9 // 4
    for colour in (FRAME_COLOUR, (11, 12, 213), (214, 15, 16), (17, 218, 219)):
        assert count(image, colour) == 3 * large
    for k in range(4):  # a quarter of each slot's tile is its own
        assert count(image, (20 + k, 221, 22)) == 3 * size.width * size.height // 4


def test_hero_shows_frames_reconstructions_and_slots_but_not_more_rows_than_asked() -> None:
    image = pixels(hero_figure(make_panels(frames=9), most=4))
    tile = tile_size(32, 32).width * tile_size(32, 32).height
    assert count(image, FRAME_COLOUR) == 4 * tile
    assert count(image, (11, 12, 213)) == 4 * tile
    assert count(image, (214, 15, 16)) == 0
    assert count(image, (23, 221, 22)) == 4 * tile // 4


def test_the_hero_alone_says_below_what_is_to_be_seen() -> None:
    panels = make_panels()
    bare = np.asarray(draw_hero(panels, most=4))
    told = pixels(hero_figure(panels, most=4))
    more = pixels(hero_figure(panels, most=4, said="40 of 300 steps are learned so far. " * 3))
    assert more.shape[0] > told.shape[0]
    assert told.shape[1] == bare.shape[1]
    below = told[bare.shape[0] - MARGIN :]
    assert (told[: bare.shape[0] - MARGIN] == bare[:-MARGIN]).all()
    ink = np.nonzero((below != PAPER).any(axis=(0, 2)))[0]
    assert ink.min() >= MARGIN
    assert ink.max() < told.shape[1] - MARGIN


def test_figures_are_the_same_bytes_each_time() -> None:
    panels = make_panels()
    assert panel_figure(panels) == panel_figure(panels)
    assert hero_figure(panels) == hero_figure(panels)


def test_an_object_that_no_slot_has_found_is_not_seen_in_the_segments() -> None:
    panels = make_panels(frames=1)
    panels.frames[0, 4:12, 4:12] = 255
    panels.alphas[:] = 0
    panels.alphas[:, 1] = 1
    tiles = frame_tiles(panels, most=1)[0]
    assert len(np.unique(tiles.segments.reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(tiles.frame.reshape(-1, 3), axis=0)) == 2


def test_without_ground_truth_attention_segments_take_its_place() -> None:
    with_truth, without = make_panels(), make_panels(truth=False)
    one, other = pixels(panel_figure(with_truth)), pixels(panel_figure(without))
    assert one.shape == other.shape
    assert frame_tiles(without, most=1)[0].truth is None


@pytest.mark.parametrize(
    ("height", "width"), [(5, 5), (32, 32), (64, 48), (80, 80), (96, 96), (128, 128), (128, 72)]
)
def test_tiles_are_near_their_aim_and_whole_factors_of_small_frames(
    height: int, width: int
) -> None:
    size = tile_size(height, width)
    assert TILE * 0.6 <= max(size.width, size.height) <= TILE * 1.5
    if max(height, width) <= 80:
        assert size.width % (2 * width) == size.height % (2 * height) == 0


def test_small_frames_are_enlarged_without_mixing_pixels() -> None:
    panels = make_panels(frames=1, side=8)
    rng = np.random.default_rng(0)
    board = rng.choice([5, 250], size=(1, 8, 8, 1)).astype(np.uint8).repeat(3, axis=3)
    image = pixels(hero_figure(replace(panels, frames=board)))
    factor = tile_size(8, 8).width // 8
    enlarged = board[0].repeat(factor, axis=0).repeat(factor, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], enlarged.shape[:2])
    rows = [
        y for y in range(len(windows)) if (windows[y, :200] == enlarged[..., 0]).all((1, 2)).any()
    ]
    assert len(rows) == 1


@pytest.mark.parametrize(
    "name", ["", "a" * 300, "küche\n<b>", "bad \udcff byte", "カメラ 🎥 0.0 s"]
)
def test_any_name_can_be_drawn(name: str) -> None:
    panels = replace(make_panels(frames=2), names=[name, name])
    assert pixels(panel_figure(panels)).shape == pixels(panel_figure(make_panels(frames=2))).shape
    pixels(hero_figure(panels))


def test_names_are_split_into_the_words_they_share_and_the_rest() -> None:
    assert split_names(["kitchen cam 0.1 s", "kitchen cam 12.4 s"]) == (
        "kitchen cam",
        ["0.1 s", "12.4 s"],
    )
    assert split_names(["a 1 s", "b 1 s"]) == ("", ["a 1 s", "b 1 s"])
    assert split_names(["same", "same"]) == ("", ["same", "same"])
    assert split_names(["alone 1 s"]) == ("", ["alone 1 s"])


def test_objects_take_the_colour_of_their_slot_and_the_background_stays_black() -> None:
    labels = np.array([2, 0, 3, 1])[quarters(8)][None]
    colours = slot_colours(labels, 4)
    found = match_colours(quarters(8)[None], labels, colours)
    assert found.tolist() == [[0, 0, 0], *colours[[0, 3, 1]].tolist()]


def test_what_is_not_annotated_is_grey_and_gives_no_colour_away() -> None:
    truth = np.array([[[0, 1, UNKNOWN_LABEL, UNKNOWN_LABEL]]], np.uint8)
    colours = slot_colours(np.arange(4)[None, None], 4)
    found = match_colours(truth, np.array([[[0, 2, 1, 1]]]), colours)
    assert found[truth[0, 0]].tolist() == [
        [0, 0, 0],
        colours[2].tolist(),
        *[list(UNKNOWN_GREY)] * 2,
    ]


def test_two_objects_in_one_slot_do_not_share_its_colour() -> None:
    truth = np.array([[[1, 1, 1, 2]]])
    colours = slot_colours(truth, 3)
    found = match_colours(truth, np.zeros_like(truth), colours)
    assert found[1].tolist() == colours[0].tolist()
    assert found[2].tolist() == [255, 255, 255]


def test_slot_colours_differ_and_a_background_slot_is_slate() -> None:
    labels = quarters(8)[None]
    assert len({tuple(colour) for colour in slot_colours(labels, 20).tolist()}) == 20
    assert tuple(slot_colours(np.minimum(labels, 1), 3)[1].tolist()) == SLATE


def test_attention_segments_weigh_each_slot_by_what_it_sees_elsewhere() -> None:
    """Slot 0 wins every position before normalising, and only the first after it."""
    attention = np.array([[[0.9, 0.6]], [[0.1, 0.4]]])
    assert attention_segments(attention, height=2, width=4).tolist() == [[0, 0, 1, 1]] * 2


def test_a_slot_is_drawn_over_grey_by_its_alpha() -> None:
    panels = make_panels(frames=1)
    half = replace(panels, alphas=np.full_like(panels.alphas, 0.5))
    drawn = frame_tiles(half, most=1)[0].slots[0].drawn
    expected = np.round((np.array([20, 221, 22]) + np.array(GROUND)) / 2)
    assert (drawn == expected).all()


def test_a_slot_that_no_one_attends_to_stays_black() -> None:
    panels = make_panels(frames=1)
    attention = panels.attention.copy()
    attention[:, 1] = 0
    tiles = frame_tiles(replace(panels, attention=attention), most=1)[0]
    assert not tiles.slots[1].attention.any()
    assert tiles.slots[0].attention.max() == max(tiles.slots[0].colour)
