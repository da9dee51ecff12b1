"""One vector for a set of slots, the same in any order of the slots.

    z = ρ(LayerNorm(Σ_k φ(s_k)))

φ and ρ are MLPs (Zaheer et al. 2017); the LayerNorm is SetCon's.
"""

from jaxtyping import Float
from torch import Tensor, nn

from setcon.config import SetEncoderConfig
from setcon.layers import mlp


class DeepSet(nn.Module):
    """Sets of slots to vectors."""

    def __init__(self, config: SetEncoderConfig, *, slot_size: int) -> None:
        super().__init__()
        inner = [config.hidden_size] * config.depth
        self.each = mlp([slot_size, *inner], activation=config.activation)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.whole = mlp([*inner, config.output_size], activation=config.activation)

    def forward(self, slots: Float[Tensor, "*n k d"]) -> Float[Tensor, "*n e"]:
        """One vector per set; permuting the slots of a set changes nothing."""
        return self.whole(self.norm(self.each(slots).sum(dim=-2)))
