"""One vector for a set of slots, the same in whatever order the slots come.

    z = ρ(LayerNorm(Σ_k φ(s_k)))

φ and ρ are MLPs (Zaheer et al. 2017); the LayerNorm is SetCon's.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from setcon.checks import check_at_least, check_choice
from setcon.layers import Activation, mlp


@dataclass(frozen=True, kw_only=True)
class SetEncoderConfig:
    """How large the set encoder is."""

    hidden_size: int = 128
    """Hidden units of both MLPs, and the size of the sum between them."""
    output_size: int = 128
    """Size of the vector for the whole set."""
    depth: int = 2
    """Linear layers in each of the two MLPs: 2 in the paper, 3 in the port."""
    activation: Activation = "relu"
    """Between those layers: ReLU in the paper, ELU in the port."""

    def __post_init__(self) -> None:
        check_choice("set encoder activation", self.activation, Activation)
        check_at_least(
            1, hidden_size=self.hidden_size, output_size=self.output_size, depth=self.depth
        )


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
