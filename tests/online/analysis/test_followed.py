"""Objects that are read out frame by frame: they keep slot and number up to the next break."""

import numpy as np
import pytest
import torch
from coloured_model import coloured_model
from moving_squares import BLUE, RED, YELLOW, Square, scene

from ingest.frame import Frames
from online.analysis.readout import FRAMES_AT_ONCE, Read, Readout
from online.clips.clip import Interval

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

T = 3 * FRAMES_AT_ONCE + 5


class Source:
    """One recording, with breaks before the frames in `gaps`."""

    def __init__(self, squares: list[Square], gaps: tuple[int, ...] = ()) -> None:
        self.images, self.labels = scene(squares, num_frames=T, size=(48, 64))
        self.gap = np.isin(np.arange(T), (0, *gaps))

    def fetch(self, recording: str, start: int, length: int) -> Frames:
        here = slice(start, start + length)
        return Frames(
            images=self.images[here].numpy(),
            pts_ns=np.arange(T)[here] * 100_000_000,
            gap=self.gap[here],
        )


def read(source: Source, start: int = 0, stop: int = T) -> Read:
    """All of it in one."""
    readout = Readout(coloured_model(), None, source, device=torch.device("cpu"))
    reads = list(readout.read("squares", Interval(start, stop)))
    assert [r.start for r in reads] == list(range(start, stop, FRAMES_AT_ONCE))
    return Read(
        start=start,
        frames=source.fetch("squares", start, stop - start),
        slots=np.concatenate([r.slots for r in reads]),
        reconstruction=None,
        alphas=None,
        segments=np.concatenate([r.segments for r in reads]),
        objects=np.concatenate([r.objects for r in reads]),
    )


def numbers_at(found: Read, source: Source, square: int) -> np.ndarray:
    """For each frame the number that most pixels of a square have; 0 where it is not there."""
    labels = source.labels[found.start : found.start + len(found.frames)].numpy()
    at_pixels = np.take_along_axis(
        found.objects, found.segments.reshape(len(labels), -1), axis=1
    ).reshape(labels.shape)
    return np.array(
        [
            np.bincount(numbers[here]).argmax() if (here := label == square).any() else 0
            for numbers, label in zip(at_pixels, labels, strict=True)
        ]
    )


CROSSING = [  # the larger one leaves, so that the order of sizes changes
    Square(side=16, start=(2, 4), velocity=(0, 2), colour=BLUE),
    Square(side=12, start=(30, 40), colour=RED),
]


def test_numbers_are_kept_from_window_to_window_though_the_order_of_sizes_changes():
    source = Source(CROSSING)
    found = read(source)
    red = numbers_at(found, source, 2)
    assert set(red.tolist()) == {2}
    blue = numbers_at(found, source, 1)
    assert set(blue[:25].tolist()) == {1}
    assert not (found.objects[35:] == 1).any()  # it is gone
    slots = [np.flatnonzero(row == 2).tolist() for row in found.objects]
    assert slots == [[2]] * T
    assert (found.objects[:, 0] == 0).all()


def test_a_break_makes_new_objects():
    source = Source(CROSSING[1:], gaps=(20,))
    found = read(source)
    assert numbers_at(found, source, 2 - 1).tolist() == [1] * 20 + [2] * (T - 20)


def test_breaks_at_the_edges_of_windows_and_next_to_each_other_are_breaks_too():
    gaps = (FRAMES_AT_ONCE, 2 * FRAMES_AT_ONCE - 1, 2 * FRAMES_AT_ONCE)
    source = Source(CROSSING[1:], gaps=gaps)
    found = read(source)
    expected = 1 + np.searchsorted(gaps, np.arange(T), side="right")
    assert numbers_at(found, source, 1).tolist() == expected.tolist()


def test_what_comes_later_gets_the_next_number():
    late = Square(side=12, start=(4, 8), colour=YELLOW, first=FRAMES_AT_ONCE + 4)
    source = Source([CROSSING[1], late])
    found = read(source)
    assert set(numbers_at(found, source, 1).tolist()) == {1}
    assert numbers_at(found, source, 2).tolist() == [0] * 20 + [2] * (T - 20)


def test_slots_begin_with_where_the_object_is_and_empty_ones_are_alike():
    source = Source(CROSSING[1:])
    found = read(source)
    (y, x) = 35.5 / 47, 45.5 / 63
    for row, numbers in zip(found.slots, found.objects, strict=True):
        slot = int(np.flatnonzero(numbers == 1)[0])
        assert row[slot, :2] == pytest.approx([y, x], abs=0.05)
        np.testing.assert_array_equal(row[numbers == -1], found.slots[0, -1:].repeat(3, axis=0))


def test_reading_may_begin_anywhere():
    source = Source(CROSSING)
    found = read(source, start=10, stop=30)
    assert set(numbers_at(found, source, 2).tolist()) == {2}
    assert found.segments.shape == (20, 48, 64)


def test_a_model_with_learned_starts_has_no_objects():
    from setcon.config import SetConConfig
    from setcon.model import SetCon

    readout = Readout(SetCon(SetConConfig()), None, Source([]), device=torch.device("cpu"))
    (first,) = readout.read("squares", Interval(0, 3))
    assert first.segments is None
    assert first.objects is None
