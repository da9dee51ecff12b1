"""Clips that are moved and swapped: against numpy, alike for all frames, decided by the key."""

import numpy as np
import pytest
import torch

from online.training.augment import AugmentConfig, augmented
from online.training.batch import Batch

SHAPE = (6, 3, 8, 12, 3)


@pytest.fixture
def batch() -> Batch:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8))
    return Batch(frames, torch.ones(6, 1, dtype=torch.bool))


def views(clip: np.ndarray, most_down: int, most_right: int) -> list[np.ndarray]:
    """All that may become of a clip, by numpy's own way of mirroring at a border."""
    edges = [(0, 0), (most_down, most_down), (most_right, most_right), (0, 0)]
    wide = np.pad(clip, edges, mode="reflect")
    _, height, width, _ = clip.shape
    return [
        wide[:, down : down + height, right : right + width]
        for down in range(2 * most_down + 1)
        for right in range(2 * most_right + 1)
    ]


def test_without_settings_the_batch_is_left_alone(batch):
    assert augmented(batch, AugmentConfig(), key="0/0") is batch


def test_each_clip_becomes_one_of_its_views_all_frames_alike(batch):
    config = AugmentConfig(shift=0.25)
    moved = augmented(batch, config, key="0/0")
    assert moved.valid is batch.valid
    for before, after in zip(batch.frames.numpy(), moved.frames.numpy(), strict=True):
        assert any(np.array_equal(after, view) for view in views(before, 2, 3))
    assert not torch.equal(moved.frames, batch.frames)


def test_each_frame_that_jitters_becomes_a_view_of_its_own(batch):
    moved = augmented(batch, AugmentConfig(jitter=0.25), key="0/0").frames.numpy()
    alike = 0
    for before, after in zip(batch.frames.numpy(), moved, strict=True):
        each = [views(frame[None], 2, 3) for frame in before]
        steps = [
            next(i for i, view in enumerate(every) if np.array_equal(view[0], frame))
            for every, frame in zip(each, after, strict=True)
        ]
        alike += len(set(steps)) == 1
    assert alike < len(moved)


def test_a_clip_is_moved_and_then_its_frames_jitter_on_top(batch):
    config = AugmentConfig(shift=0.25, flip=True, jitter=0.25)
    moved = augmented(batch, config, key="0/0").frames.numpy()
    for before, after in zip(batch.frames.numpy(), moved, strict=True):
        both = [*views(before, 2, 3), *(view[:, :, ::-1] for view in views(before, 2, 3))]
        assert any(
            all(
                any(np.array_equal(jittered[0], now) for jittered in views(frame[None], 2, 3))
                for frame, now in zip(view, after, strict=True)
            )
            for view in both
        )


def test_left_and_right_are_swapped_in_some_clips_and_nothing_else_is(batch):
    swapped = augmented(batch, AugmentConfig(flip=True), key="0/0").frames
    as_before = [torch.equal(a, b) for a, b in zip(swapped, batch.frames, strict=True)]
    as_mirror = [torch.equal(a, b.flip(2)) for a, b in zip(swapped, batch.frames, strict=True)]
    assert [a or b for a, b in zip(as_before, as_mirror, strict=True)] == [True] * 6
    assert any(as_before)
    assert any(as_mirror)


def test_colours_of_a_clip_change_by_one_line_for_each_channel(batch):
    changed = augmented(batch, AugmentConfig(colour=0.2), key="0/0").frames.numpy() / 255
    for before, after in zip(batch.frames.numpy() / 255, changed, strict=True):
        for channel in range(3):
            x, y = before[..., channel].ravel(), after[..., channel].ravel()
            inside = (y > 0) & (y < 1)
            gain, offset = np.polyfit(x[inside], y[inside], 1)
            assert abs(gain - 1) <= 0.21
            assert abs(offset) <= 0.21
            np.testing.assert_allclose(y, (gain * x + offset).clip(0, 1), atol=0.01)
    assert not np.array_equal(changed * 255, batch.frames.numpy())


def test_every_step_has_views_of_its_own_and_the_same_ones_again_after_a_resume(batch):
    config = AugmentConfig(shift=0.25, flip=True, jitter=0.1, colour=0.1)
    first, again, other = (
        augmented(batch, config, key=key).frames for key in ("1/5", "1/5", "1/6")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_row_cannot_be_moved():
    frames = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 1, 4, 1).expand(1, 1, 1, 4, 3)
    moved = augmented(
        Batch(frames, torch.ones(1, 1, dtype=torch.bool)), AugmentConfig(shift=0.5), key="0"
    )
    assert moved.frames.shape == frames.shape


@pytest.mark.parametrize("name", ["shift", "jitter", "colour"])
@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_changes_that_leave_nothing_to_see_are_refused(name, share):
    with pytest.raises(ValueError, match=rf"{name} must lie in 0\.\.0\.5, got {share}"):
        AugmentConfig(**{name: share})
