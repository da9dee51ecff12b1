"""What needs no model: blocks of an image, its colours, and clusters of its cells."""

import pytest
import torch

from setcon.measures.baselines import (
    COLOURED_PIXELS,
    block_labels,
    colour_labels,
    frame_k_means_labels,
    frame_ward_labels,
)
from setcon.measures.metrics import ari, fg_ari, miou


@pytest.mark.parametrize(
    ("num_segments", "blocks"), [(1, 1), (2, 2), (4, 4), (5, 4), (7, 6), (9, 9), (12, 12)]
)
def test_blocks_are_as_many_as_there_are_slots_or_fewer(num_segments, blocks):
    labels = block_labels(2, num_segments=num_segments, height=12, width=24)
    assert labels.shape == (2, 12, 24)
    assert labels[0].unique().tolist() == list(range(blocks))
    assert (labels[0].flatten().bincount() == 12 * 24 // blocks).all()  # all of one size


def test_blocks_are_quarters_where_there_are_four_slots():
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert block_labels(1, num_segments=4, height=4, width=4)[0].tolist() == expected


def test_each_pixel_gets_the_colour_that_is_nearest():
    palette = torch.tensor([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]])
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(4, (6, 8, 8), generator=generator)
    noise = torch.randint(6, (6, 8, 8, 3), generator=generator)
    images = (palette[truth] + noise).clamp(0, 255).byte()
    labels = colour_labels(images[4:], seen=images[:4], num_segments=4)
    pairs = set(zip(truth[4:].flatten().tolist(), labels.flatten().tolist(), strict=True))
    assert len(pairs) == 4  # one label for each colour, and one colour for each label


def test_colours_are_found_wherever_they_lie():
    side = 32
    count = COLOURED_PIXELS * side // side**2 + 15  # every 32nd pixel would be of the first column
    images = torch.zeros(count, side, side, 3, dtype=torch.uint8)
    images[:, 8:16, 8:16, 0] = 250
    images[:, 8:16, 20:28, 1] = 250
    labels = colour_labels(images[:1], seen=images, num_segments=3)
    assert labels[0, 10, 10] != labels[0, 10, 22] != labels[0, 0, 0] != labels[0, 10, 10]


def test_fewer_colours_than_segments_leave_labels_unused():
    images = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    images[:, 2:] = 200
    labels = colour_labels(images, seen=images, num_segments=5)
    assert len(labels[0, :2].unique()) == len(labels[0, 2:].unique()) == 1
    assert labels[0, 0, 0] != labels[0, 3, 0]


@pytest.fixture(scope="module")
def textured():
    """Frames of two textured objects and their masks; colours differ from frame to frame."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(5, 48, 64, dtype=torch.uint8)
    masks[:, 4:24, 6:28] = 1
    masks[:, 24:44, 34:58] = 2
    colours = torch.tensor([[60, 60, 60], [200, 70, 70], [70, 200, 70], [70, 70, 200]])
    palette = torch.stack([colours[torch.randperm(4, generator=generator)] for _ in range(5)])
    images = palette[torch.arange(5)[:, None, None], masks.long()]
    texture = torch.randint(-25, 26, images.shape, generator=generator)
    return (images + texture).clamp(0, 255).byte(), masks


@pytest.mark.parametrize("find", [frame_k_means_labels, frame_ward_labels])
def test_objects_that_stand_out_in_their_frame_are_found(find, textured):
    images, masks = textured
    labels = find(images, num_segments=3)
    assert labels.shape == masks.shape
    assert labels.unique().tolist() == [0, 1, 2]
    assert fg_ari(masks, labels).min() > 0.85
    assert miou(masks, labels).min() > 0.7


@pytest.mark.parametrize("find", [frame_k_means_labels, frame_ward_labels])
def test_the_same_frame_gets_the_same_segments_whatever_it_is_next_to(find, textured):
    images, _ = textured
    labels = find(images, num_segments=3)
    assert torch.equal(labels, find(images, num_segments=3))
    alone = find(images[2:3], num_segments=3)
    assert ari(labels[2:3], alone) == 1


@pytest.mark.parametrize("find", [frame_k_means_labels, frame_ward_labels])
def test_images_smaller_than_the_grid_have_pixels_for_cells(find):
    images = torch.zeros(1, 3, 5, 3, dtype=torch.uint8)
    images[:, :, 3:] = 200
    labels = find(images, num_segments=2)
    assert labels.shape == (1, 3, 5)
    assert labels[0, 0, 0] != labels[0, 0, 4]


def test_regions_are_no_more_than_there_are_cells():
    assert len(frame_ward_labels(torch.zeros(1, 1, 2, 3).byte(), num_segments=4).unique()) == 2
