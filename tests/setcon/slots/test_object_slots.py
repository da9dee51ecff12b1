"""Slots that start at objects, of a model that knows red and blue squares by their colour."""

import dataclasses

import pytest
import torch
from coloured_model import coloured_model, object_model
from moving_squares import BLUE, RED, Square, by_cell, scene

from setcon.config import (
    GEOMETRY,
    EncoderConfig,
    LossConfig,
    SetConConfig,
    SlotAttentionConfig,
)
from setcon.model import SetCon, SetConOutput
from setcon.slots.object_slots import as_bytes, prediction_loss
from setcon.slots.slot_attention import Slots
from setcon.supervoxels.supervoxels import Supervoxels

SQUARES = (
    Square(side=12, start=(32, 46), velocity=(0, -2), colour=RED),
    Square(side=18, start=(4, 4), velocity=(1, 2), colour=BLUE),
)


def images_of(frames: torch.Tensor) -> torch.Tensor:
    return frames.float().div(255).movedim(-1, 1)


def encoded(model: SetCon, squares=SQUARES, num_frames: int = 8) -> tuple[Slots, torch.Tensor]:
    frames, labels = scene(squares, num_frames=num_frames)
    with torch.no_grad():
        return model.encode(images_of(frames), run_length=num_frames), labels


def test_each_object_has_a_slot_and_the_rest_are_constants():
    model = coloured_model()
    slots, labels = encoded(model)
    held = slots.attention.sum(dim=-1) > 0
    assert held.all(dim=0).tolist() == [True, True, True, False, False]
    assert not held[:, 3:].any()
    assert torch.equal(slots.slots[:, 3:], slots.slots[:1, 3:4].expand(8, 2, -1))
    assert not slots.slots[:, 3:, :GEOMETRY].any()
    assert slots.slots[:, 3:, GEOMETRY:].any()
    assert (slots.slots[:, :3, GEOMETRY:] != slots.slots[:, 3:4, GEOMETRY:]).any(dim=-1).all()
    numbers = torch.tensor([0, 2, 1])  # the largest first
    assert slots.segments is not None
    assert (slots.segments == numbers[labels]).float().mean() > 0.995


def test_attention_gives_each_position_to_one_slot_and_segments_refine_it():
    slots, _ = encoded(coloured_model())
    assert torch.equal(slots.attention.sum(dim=1), torch.ones(8, 12 * 16))
    assert ((slots.attention == 0) | (slots.attention == 1)).all()
    centres = slots.segments[:, 2::4, 2::4].flatten(1)
    assert (slots.attention.argmax(dim=1) == centres).float().mean() > 0.95


def test_a_slot_begins_with_centre_and_spread():
    frames, _ = scene([Square(side=16, start=(8, 32), colour=RED)], num_frames=3)
    model = coloured_model()
    with torch.no_grad():
        slots = model.encode(images_of(frames), run_length=3).slots
    rows, columns = torch.arange(2, 6) / 11, torch.arange(8, 12) / 15
    expected = [rows.mean(), columns.mean(), rows.std(correction=0), columns.std(correction=0)]
    torch.testing.assert_close(slots[:, 1, :GEOMETRY], torch.stack(expected).expand(3, -1))
    everywhere = slots[:, 0, :GEOMETRY]
    assert ((everywhere[:, :2] - 0.5).abs() < 0.1).all()
    assert ((everywhere[:, 2:] - 0.3).abs() < 0.05).all()


def test_then_follow_moments_of_its_objects_colours():
    frames, _ = scene([Square(side=16, start=(8, 16), colour=RED)], num_frames=3)
    frames[:, 16:20, 32:64] = torch.tensor(BLUE, dtype=torch.uint8)  # a long tail
    frames[:, 24:28, 24:28] = torch.tensor(RED, dtype=torch.uint8)
    model = coloured_model(slot_size=24, colour_moments=6)
    pieces = one_object(frames)
    with torch.no_grad():
        slots = model.encode(images_of(frames), run_length=3, pieces=[pieces]).slots
    cells = torch.nn.functional.avg_pool2d(images_of(frames), 4)
    for frame, slot in enumerate(slots[:, 1]):
        rows, columns = (pieces.labels[frame] == 1).nonzero(as_tuple=True)
        where = torch.stack([rows / 11, columns / 15], dim=1)
        own = ((where - where.mean(dim=0)) / where.std(dim=0, correction=0)).clamp(-3, 3)
        moments = torch.zeros(6, 3)
        for (v, w), row, column in zip(own.tolist(), rows, columns, strict=True):
            second = ((v * v - 1) / 2**0.5, v * w, (w * w - 1) / 2**0.5)
            for number, h in enumerate((1, v, w, *second)):
                moments[number] += h * (2 * cells[frame, :, row, column] - 1) / len(rows)
        assert (own.abs() > 1.8).any()
        assert (moments.abs().amax(dim=1) > 0.02).all()
        torch.testing.assert_close(slot[GEOMETRY:22].view(6, 3), moments, atol=1e-5, rtol=1e-4)
    assert not slots[:, 2:, :22].any()
    assert slots[:, 2:, 22:].any()


def one_object(frames: torch.Tensor) -> Supervoxels:
    """Pieces in which all that is coloured is one."""
    found = Supervoxels.of(frames, distance=None)
    cells = as_bytes(torch.nn.functional.avg_pool2d(images_of(frames), 4)).int()
    coloured = (cells.amax(dim=-1) - cells.amin(dim=-1) > 60).long()
    area = torch.stack([coloured == 0, coloured == 1]).sum(dim=(2, 3)).double().numpy()
    return dataclasses.replace(
        found,
        labels=coloured,
        regions=torch.arange(2),
        evidence=found.evidence[:2],
        area=area,
        places=found.places[:2],
        colour=found.colour[:2],
        border=found.border[:2, :2],
    )


def test_a_slot_keeps_its_object_though_another_becomes_larger():
    growing = Square(
        side=22, start=(24, 64), velocity=(0, -5), colour=RED
    )  # comes into the picture
    slots, labels = encoded(
        coloured_model(), (growing, Square(side=16, start=(2, 2))), num_frames=7
    )
    sizes = torch.stack([(labels == i).sum(dim=(1, 2)) for i in (1, 2)])
    assert (sizes[0] > sizes[1]).tolist()[0] is False
    assert (sizes[0] > sizes[1]).tolist()[-1] is True
    blue = slots.segments[0, 10, 10]
    red = slots.segments[-1, 34, 50]
    assert {int(blue), int(red)} == {1, 2}
    assert (slots.segments[:, 10, 10] == blue).all()
    present = labels == 1
    assert (slots.segments[present] == red).float().mean() > 0.95
    where = slots.slots[3:, red, 1]
    assert (where.diff() < 0).all()  # it goes left


def test_more_objects_than_slots_leave_the_smaller_ones_to_the_background():
    slots, labels = encoded(coloured_model(num_slots=2))
    assert slots.slots.shape == (8, 2, 12)
    assert ((slots.segments == 1) == (labels == 2)).float().mean() > 0.99


def test_runs_that_are_encoded_together_are_as_those_alone():
    model = coloured_model()
    runs = [
        images_of(scene(SQUARES, num_frames=5, seed=seed, pan=(0, seed))[0]) for seed in range(2)
    ]
    with torch.no_grad():
        both = model.encode(torch.cat(runs), run_length=5)
        alone = [model.encode(run, run_length=5) for run in runs]
        output = model(torch.stack(runs))
    torch.testing.assert_close(both.slots, torch.cat([each.slots for each in alone]))
    assert torch.equal(both.segments, torch.cat([each.segments for each in alone]))
    torch.testing.assert_close(output.slots.flatten(0, 1), both.slots)
    assert torch.equal(output.attention.flatten(0, 1), both.attention)
    assert torch.equal(output.foreground.flatten(0, 1), both.foreground)
    assert torch.equal(output.segments.flatten(0, 1), both.segments)
    assert output.predicted.shape == (2, 3, 5, 12)


def test_supervoxels_that_are_known_are_not_found_again(monkeypatch):
    model, (frames, _) = coloured_model(), scene(SQUARES, num_frames=5)
    images = images_of(frames)
    assert torch.equal(as_bytes(images), frames)
    pieces = [Supervoxels.of(frames)]
    with torch.no_grad():
        expected = model.encode(images, run_length=5)
        monkeypatch.setattr(Supervoxels, "of", None)
        found = model.encode(images, run_length=5, pieces=pieces, outlines=False)
    assert torch.equal(found.slots, expected.slots)
    assert found.segments is None


def backward(model: SetCon, loss: torch.Tensor) -> dict[str, bool]:
    model.zero_grad()
    loss.backward()
    learns: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        part = name.split(".")[0] if "foreground" not in name else "foreground"
        moved = parameter.grad is not None and bool(parameter.grad.any())
        learns[part] = learns.get(part, False) or moved
    return learns


def test_the_loss_of_sets_teaches_no_encoder_and_that_of_the_foreground_nothing_else():
    model, (frames, labels) = object_model(foreground_threshold=0.0), scene(SQUARES, num_frames=5)
    images = images_of(frames)
    output = model(images[None])
    assert isinstance(output, SetConOutput)
    learns = backward(model, model.loss(output, LossConfig()).loss)
    assert learns == {
        "encoder": False,
        "foreground": False,
        "slot_attention": True,
        "transition": True,
        "set_encoder": True,
    }
    targets = (by_cell(labels > 0).flatten(1) > 0.5).float()
    learns = backward(model, model.foreground_loss(images, targets))
    assert learns == {
        "encoder": True,
        "foreground": True,
        "slot_attention": False,
        "transition": False,
        "set_encoder": False,
    }


def test_the_contrast_does_not_teach_what_is_predicted_of_places_and_looks():
    model = object_model(slot_size=16, colour_moments=3, foreground_threshold=0.0)
    frames, _ = scene(SQUARES, num_frames=5)
    output = model(images_of(frames)[None])
    output.predicted.retain_grad()
    model.loss(output, LossConfig()).loss.backward()
    taught = output.predicted.grad.abs().sum(dim=(0, 1, 2)) > 0
    assert taught.tolist() == [False] * 13 + [True] * 3


def test_every_encoder_parameter_learns_the_foreground():
    model, (frames, labels) = object_model(), scene(SQUARES, num_frames=3)
    targets = (by_cell(labels > 0).flatten(1) > 0.5).float()
    model.foreground_loss(images_of(frames), targets).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.encoder.parameters())


def test_learned_starts_have_no_foreground():
    with pytest.raises(TypeError, match="slots with learned starts have no foreground"):
        SetCon(SetConConfig()).foreground_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 16))


def test_the_distance_of_predictions_counts_objects_that_are_there_all_along():
    torch.manual_seed(0)
    slots = torch.randn(2, 5, 3, 6, requires_grad=True)
    predicted = torch.randn(2, 3, 3, 6, requires_grad=True)
    held, valid = torch.ones(2, 5, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    held[0, 2, 1] = False  # is in all three triplets of this run
    valid[1, 2] = False
    each = []
    for b, t, k in ((b, t, k) for b in range(2) for t in range(3) for k in range(3)):
        if (b, k) == (0, 1) or (b, t) == (1, 2):
            continue
        error = (predicted[b, t, k] - slots[b, t + 2, k]).abs()
        error = torch.cat([10 * error[:4], error[4:]])
        each.append(torch.where(error < 0.1, error.square() / 0.2, error - 0.05).mean())
    loss = prediction_loss(slots, predicted, held, valid)
    torch.testing.assert_close(loss, torch.stack(each).mean())
    loss.backward()
    assert slots.grad is None
    assert not predicted.grad[0, :, 1].any()
    assert predicted.grad[1, :2].all()


def test_predictions_a_stride_ahead_are_compared_with_their_own_frame():
    slots = torch.randn(1, 7, 2, 6)
    everything = torch.ones(1, 7, 2, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    assert prediction_loss(slots, slots[:, 4:], *everything) == 0
    assert prediction_loss(slots, slots[:, 3:6], *everything) > 0.1


def test_slots_need_room_for_where_an_object_is_and_for_how_it_looks():
    assert SlotAttentionConfig(starts="objects", slot_size=6).slot_size == 6
    with pytest.raises(ValueError, match="slot_size must be at least 6, got 4"):
        SlotAttentionConfig(starts="objects", slot_size=4)
    with pytest.raises(ValueError, match="slot_size must be at least 24, got 23"):
        SlotAttentionConfig(starts="objects", slot_size=23, colour_moments=6)
    with pytest.raises(ValueError, match="colour_moments must be one of 0, 1, 3, 6, got 2"):
        SlotAttentionConfig(starts="objects", colour_moments=2)
    with pytest.raises(ValueError, match="only slots that start at objects have colour_moments"):
        SlotAttentionConfig(slot_size=32, colour_moments=6)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(ValueError, match=r"foreground_threshold must lie in 0\.\.1"):
        SlotAttentionConfig(foreground_threshold=threshold)


@pytest.mark.parametrize("name", ["foreground", "prediction", "foreground_trust"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_weights_that_mean_nothing_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be (at least|below)"):
        LossConfig(**{name: value})


@pytest.mark.parametrize("kind", ["paper", "small", "normal", "large"])
def test_objects_need_the_dilated_encoder(kind):
    with pytest.raises(ValueError, match=f'"dilated" or "timm", got {kind!r}'):
        SetConConfig(
            encoder=EncoderConfig(kind=kind), slot_attention=SlotAttentionConfig(starts="objects")
        )
