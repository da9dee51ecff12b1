"""What the slots will be: a residual step from two frames, shared by all slots.

    p_t = s_{t-1} + Linear(LayerNorm(Linear([s_{t-2}, s_{t-1}, s_{t-1} - s_{t-2}])))

Frames t-2, t-1 and t are `frame_stride` apart.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Transition(nn.Module):
    """Slots of two frames to the predicted slots of a third."""

    def __init__(self, slot_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(3 * slot_size, slot_size)
        self.norm = nn.LayerNorm(slot_size)
        self.out = nn.Linear(slot_size, slot_size)

    def forward(
        self, slots: Float[Tensor, "b t k d"], *, frame_stride: int = 1
    ) -> Float[Tensor, "b t-2*{frame_stride} k d"]:
        """Predict frame i + 2 * frame_stride from frames i and i + frame_stride, for every i.

        Raises ValueError if there is no such triplet of frames.
        """
        triplets = slots.shape[1] - 2 * frame_stride
        if triplets < 1:
            raise ValueError(
                f"a triplet of frame stride {frame_stride} needs {2 * frame_stride + 1} frames, "
                f"got {slots.shape[1]}"
            )
        earlier = slots[:, :triplets]
        later = slots[:, frame_stride : frame_stride + triplets]
        both = torch.cat([earlier, later, later - earlier], dim=-1)
        return later + self.out(self.norm(self.project(both)))
