import numpy as np
import pytest
import torch
from streaming import triplets_of

from ingest.frame import Frames
from online.clips.clip import Clip, ClipConfig, ClipSpec
from online.training.batch import as_floats, collate, to_images


def random_clip(frames: int, *, start: int = 0, size: int = 6) -> Clip:
    rng = np.random.default_rng(start)
    images = rng.integers(0, 256, (frames, size, size + 1, 3), dtype=np.uint8)
    run = Frames(images, np.arange(frames), np.zeros(frames, np.bool_))
    return Clip(ClipSpec("r", start, frames), run)


def test_images_become_floats_of_one_with_channels_first():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 6, 3), dtype=np.uint8)
    expected = torch.from_numpy(images).double().div(255).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(to_images(images).double(), expected, rtol=0, atol=1e-7)
    assert to_images(np.full((1, 1, 3), 255, np.uint8)).flatten().tolist() == [1.0, 1.0, 1.0]


def test_images_that_may_not_be_written_to_are_converted_without_a_warning():
    images = random_clip(3).frames.images
    expected = to_images(images)
    images.flags.writeable = False
    assert torch.equal(to_images(images), expected)


def test_a_batch_is_the_clips_stacked_in_order():
    clips = [random_clip(7), random_clip(7, start=9)]
    batch = collate(clips, ClipConfig(clip_length=3, frame_stride=2))
    images = torch.stack([to_images(clip.frames.images) for clip in clips])
    assert torch.equal(as_floats(batch.frames), images)
    assert batch.frames.dtype == torch.uint8
    assert batch.valid.shape == (2, 3)
    assert batch.valid.all()


def test_a_shorter_clip_is_filled_up_with_its_last_frame_and_marked():
    clips = [random_clip(7), random_clip(5, start=9)]
    batch = collate(clips, ClipConfig(clip_length=3, frame_stride=2))
    images = torch.from_numpy(clips[1].frames.images)
    last = images[-1]
    assert torch.equal(batch.frames[1, :5], images)
    assert torch.equal(batch.frames[1, 5], last)
    assert torch.equal(batch.frames[1, 6], last)
    assert batch.valid.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("frame_stride", [1, 2, 3])
def test_valid_marks_the_triplets_that_the_clips_own(frame_stride):
    config = ClipConfig(clip_length=4, frame_stride=frame_stride)
    clips = [random_clip(config.frames), random_clip(config.frames - 1, start=40)]
    valid = collate(clips, config).valid
    for row, clip in zip(valid, clips, strict=True):
        first = clip.spec.start + config.overlap
        marked = [first + j for j in row.nonzero().flatten().tolist()]
        assert marked == [t.last_frame for t in triplets_of(clip.spec, config)]


def test_clips_of_different_frame_sizes_are_refused():
    with pytest.raises(ValueError, match="one frame size"):
        collate([random_clip(7), random_clip(7, size=5)], ClipConfig(clip_length=3))
