"""Places of objects, and the slots that give them."""

import math

import torch

from setcon.measures.places import object_places, place_r2


def test_a_place_is_the_mean_of_a_things_pixels_and_nan_where_it_is_hidden():
    masks = torch.zeros(2, 6, 8, dtype=torch.uint8)
    masks[0, 1:3, 2:5] = 1
    masks[0, 5, 7] = masks[1, 0, 0] = 2
    places = object_places(masks, num_objects=3)
    assert places.shape == (2, 3, 2)
    assert places[0, 0].tolist() == [1.5, 3.0]
    assert places[0, 1].tolist() == [5.0, 7.0]
    assert places[1, 1].tolist() == [0.0, 0.0]
    assert places[1, 0].isnan().all()
    assert places[:, 2].isnan().all()


def test_a_thing_is_told_by_the_slot_that_knows_of_it_alone():
    generator = torch.Generator().manual_seed(0)

    def footage(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        places = torch.rand(count, 3, 2, generator=generator, dtype=torch.float64)
        slots = torch.randn(count, 4, 6, generator=generator)
        slots[:, 2, :2] = 1e-2 * places[:, 0].float()  # of little variance, but all there is
        slots[:, 3, 4] = places[:, 1, 0].float()  # rows only
        places[3:, 2] = torch.nan  # nearly never seen
        return slots, places

    r2 = place_r2(footage(600), footage(400))
    assert r2.shape == (4, 3)
    assert r2[2, 0] > 0.999
    assert r2[[0, 1, 3], 0].max() < 0.05
    assert 0.4 < r2[3, 1] < 0.6  # of two coordinates, one
    assert r2[:, 2].isnan().all()


def test_what_was_learned_by_heart_is_worth_nothing():
    generator = torch.Generator().manual_seed(0)
    slots = torch.randn(40, 1, 39, generator=generator)  # as many numbers as frames
    places = torch.rand(40, 1, 2, generator=generator, dtype=torch.float64)
    assert place_r2((slots, places), (slots, places))[0, 0] > 0.9
    other = torch.randn(40, 1, 39, generator=generator)
    assert place_r2((slots, places), (other, places))[0, 0] < 0.1


def test_a_thing_that_never_moves_has_no_share_of_its_motion_to_tell():
    slots, places = torch.randn(40, 2, 4), torch.full((40, 1, 2), 3.0, dtype=torch.float64)
    assert not any(math.isfinite(r2) for r2 in place_r2((slots, places), (slots, places)).flatten())
