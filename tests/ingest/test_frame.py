import numpy as np
import pytest

from ingest.frame import Frame, Frames


def frame(index: int, *, masks: bool = True, captured: bool = True) -> Frame:
    return Frame(
        image=np.full((4, 5, 3), index, np.uint8),
        pts_ns=100 * index,
        gap=index == 0,
        captured_ns=index if captured else None,
        masks=np.full((4, 5), index, np.uint8) if masks else None,
    )


def test_a_stack_holds_its_frames_in_order():
    frames = Frames.stack([frame(index) for index in range(3)])
    assert len(frames) == 3
    assert frames.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert frames.pts_ns.tolist() == [0, 100, 200]
    assert frames.gap.tolist() == [True, False, False]
    assert frames.masks is not None
    assert frames.captured_ns is not None


def test_an_optional_field_that_some_frames_lack_is_left_out():
    frames = Frames.stack([frame(0), frame(1, masks=False, captured=False)])
    assert frames.masks is None
    assert frames.captured_ns is None


def test_join_and_part_undo_each_other():
    whole = Frames.stack([frame(index) for index in range(5)])
    again = Frames.join([whole.part(0, 2), whole.part(2, 5)])
    for field in ("images", "pts_ns", "gap", "captured_ns", "masks"):
        np.testing.assert_array_equal(getattr(again, field), getattr(whole, field))


def test_a_part_is_a_view():
    whole = Frames.stack([frame(index) for index in range(5)])
    assert np.shares_memory(whole.part(1, 3).images, whole.images)


def test_frames_compare_by_identity_because_they_hold_arrays():
    assert frame(1) != frame(1)


def test_a_frame_cannot_be_changed():
    with pytest.raises(AttributeError):
        frame(1).gap = True  # type: ignore[misc]
