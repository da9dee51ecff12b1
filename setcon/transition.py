"""What the slots will be: a residual step from two frames, the same for all slots.

    h = Linear([s_{t-2}, s_{t-1}, s_{t-1} - s_{t-2}])
    interacting only:  h += attention among the slots of LayerNorm(h);  h += MLP(LayerNorm(h))
    p_t = s_{t-1} + Linear(LayerNorm(h))

Where the first numbers of a slot say where its object is, in shares of the picture, their change is

    M (s_{t-1} - s_{t-2}) + Linear(LayerNorm(h)) / 50

with M the identity at first: normalising h loses how fast a slow object is, and what is learned
of a place must not tremble by more than a pixel or two. What is measured of its looks changes by a
tenth of Linear(LayerNorm(h)).

Frames t-2, t-1 and t are `frame_stride` apart. The paper's step is nearly linear and sees no other
slot, so that it foresees no collision. A layer of a transformer (Vaswani et al. 2017), with one
head and normalised before attention and MLP, lets it.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Float
from torch import Tensor, nn

from setcon.checks import check_at_least
from setcon.config import TransitionConfig
from setcon.layers import mlp

_PLACE_UNIT = 1 / 50
_LOOKS_UNIT = 1 / 10


class Transition(nn.Module):
    """Slots of two frames to the predicted slots of a third.

    The first `geometry` numbers of a slot say where its object is, the others of the first
    `measured` what it looks like.
    """

    def __init__(
        self, config: TransitionConfig, *, slot_size: int, geometry: int = 0, measured: int = 0
    ) -> None:
        super().__init__()
        check_at_least(geometry, measured=measured)
        self.measured = measured
        interacting = config.kind == "interacting"
        size = config.hidden_size if interacting else slot_size
        self.project = nn.Linear(3 * slot_size, size)
        self.interaction = Interaction(size) if interacting else nn.Identity()
        self.norm = nn.LayerNorm(size)
        self.out = nn.Linear(size, slot_size)
        self.motion = nn.Linear(geometry, geometry, bias=False) if geometry else None
        if self.motion is not None:
            nn.init.eye_(self.motion.weight)

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
        return self.step(slots[:, :triplets], slots[:, frame_stride : frame_stride + triplets])

    def step(
        self, earlier: Float[Tensor, "*n k d"], later: Float[Tensor, "*n k d"]
    ) -> Float[Tensor, "*n k d"]:
        """One step on from two sets of slots, which may be predicted themselves."""
        hidden = self.project(torch.cat([earlier, later, later - earlier], dim=-1))
        change = self.out(self.norm(self.interaction(hidden)))
        if self.motion is not None:
            size = self.motion.in_features
            moved = self.motion(later[..., :size] - earlier[..., :size])
            moved = moved + _PLACE_UNIT * change[..., :size]
            looks = _LOOKS_UNIT * change[..., size : self.measured]
            change = torch.cat([moved, looks, change[..., self.measured :]], dim=-1)
        return later + change


class Interaction(nn.Module):
    """A transformer layer over the slots of a triplet of frames; one head, normalised before."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(size)
        self.to_attention = nn.Linear(size, 3 * size)
        self.merge = nn.Linear(size, size)
        self.norm_mlp = nn.LayerNorm(size)
        self.mlp = mlp([size, 2 * size, size])

    def forward(self, hidden: Float[Tensor, "*n k c"]) -> Float[Tensor, "*n k c"]:
        """Each slot attends to all; the softmax is over the slots that it looks at."""
        queries, keys, values = self.to_attention(self.norm_attention(hidden)).chunk(3, dim=-1)
        hidden = hidden + self.merge(F.scaled_dot_product_attention(queries, keys, values))
        return hidden + self.mlp(self.norm_mlp(hidden))
