"""The time of a training step does not depend on what its frames show."""

import torch

from online.config import RunConfig
from online.training.batch import Batch


def noise(config: RunConfig, size: int) -> Batch:
    """A batch of full clips of random pixels."""
    clip, clips = config.stream.clip, config.training.batch_clips
    frames = torch.randint(256, (clips, clip.frames, size, size, 3), dtype=torch.uint8)
    return Batch(frames, torch.ones(clips, clip.clip_length, dtype=torch.bool))
