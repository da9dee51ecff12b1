import pytest
import torch

from setcon.transition import Transition


@pytest.mark.parametrize("frame_stride", [1, 2])
def test_each_slot_is_predicted_from_the_same_slot_of_two_frames(frame_stride):
    torch.manual_seed(0)
    transition = Transition(4).double()
    slots = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    predicted = transition(slots, frame_stride=frame_stride)
    assert predicted.shape == (2, 7 - 2 * frame_stride, 3, 4)
    for b in range(2):
        for i in range(predicted.shape[1]):
            for k in range(3):
                earlier, later = slots[b, i, k], slots[b, i + frame_stride, k]
                inner = transition.project(torch.cat([earlier, later, later - earlier]))
                expected = later + transition.out(transition.norm(inner))
                torch.testing.assert_close(predicted[b, i, k], expected)


def test_a_run_shorter_than_one_triplet_is_refused():
    with pytest.raises(ValueError, match="frame stride 2 needs 5 frames, got 4"):
        Transition(4)(torch.randn(1, 4, 3, 4), frame_stride=2)
