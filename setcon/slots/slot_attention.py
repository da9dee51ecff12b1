"""Slot attention (Locatello et al. 2020) from learned starts: slots compete for every position.

    A       = softmax over slots of (q·k / √d)              what is returned as attention
    update  = Σ_p values_p · A_p / Σ_p A_p                  a weighted mean over positions
    slots   = GRU(update, slots);  slots += MLP(LayerNorm(slots))

The competition runs in float32, also under autocast: in bfloat16 the shares of a position no longer
sum to one, and a sum over thousands of positions loses the small ones.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from setcon.config import SlotAttentionConfig
from setcon.layers import at_least_float32, mlp

_EPSILON = 1e-8  # a slot that lost every position still has a mean


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """The slots of a batch of images, and who won which position."""

    slots: Float[Tensor, "n k d"]
    attention: Float[Tensor, "n k p"]
    """Shares of each position: over k they sum to one; over p they are not normalised."""
    foreground: Float[Tensor, "n p"] | None = None
    """Logits of whether a position belongs to an object, from slots that start at objects."""
    segments: Int64[Tensor, "n h w"] | None = None
    """Whose each pixel is, finer than attention says it, from slots that start at objects."""


class SlotAttention(nn.Module):
    """Features to slots."""

    def __init__(self, config: SlotAttentionConfig, *, feature_size: int) -> None:
        super().__init__()
        size = config.slot_size
        self.iterations = config.iterations
        self.starts = nn.Parameter(torch.randn(config.num_slots, size))
        self.norm_inputs = nn.LayerNorm(feature_size)
        self.norm_slots = nn.LayerNorm(size)
        self.norm_mlp = nn.LayerNorm(size)
        self.to_queries = nn.Linear(size, size)
        self.to_keys = nn.Linear(feature_size, size)
        self.to_values = nn.Linear(feature_size, size)
        self.gru = nn.GRUCell(size, size)
        self.mlp = mlp([size, config.hidden_size, size])

    def forward(self, features: Float[Tensor, "n p c"]) -> Slots:
        """The slots of each image after the last round, with the attention of that round."""
        inputs = self.norm_inputs(features)
        keys, values = self.to_keys(inputs), self.to_values(inputs)
        with torch.autocast(features.device.type, enabled=False):
            return self._compete(at_least_float32(keys), at_least_float32(values))

    def _compete(self, keys: Float[Tensor, "n p d"], values: Float[Tensor, "n p d"]) -> Slots:
        found = self._round(self.starts.expand(keys.shape[0], -1, -1), keys, values)
        for _ in range(self.iterations - 1):
            found = self._round(found.slots, keys, values)
        return found

    def _round(
        self,
        slots: Float[Tensor, "n k d"],
        keys: Float[Tensor, "n p d"],
        values: Float[Tensor, "n p d"],
    ) -> Slots:
        queries = self.to_queries(self.norm_slots(slots)) * slots.shape[-1] ** -0.5
        attention = (queries @ keys.transpose(-1, -2)).softmax(dim=-2)  # slots compete
        weights = attention + _EPSILON
        updates = weights @ values / weights.sum(dim=-1, keepdim=True)
        updated = self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(updates)
        return Slots(updated + self.mlp(self.norm_mlp(updated)), attention)
