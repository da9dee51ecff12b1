"""What the loss is taken of: rows of states and predictions, which several processes can gather.

    runs ─▶ slots ─▶ set encoder ─▶ rows ─┬─▶ loss
                  rows of other processes ┘

The loss compares every row with every other, and nothing but rows. So a process that has the rows
of all computes the loss of all; where only its own rows carry gradients, it gets its own share of
the gradient, and the shares of all processes add up to the gradient.
"""

import statistics
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from setcon.config import LossConfig
from setcon.loss import ContrastiveLoss, SetConLoss, contrastive_loss, slotwise_contrastive_loss


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """States and predictions as the contrast takes them: of whole sets, or slot by slot."""

    states: Float[Tensor, "s ..."]
    shares: Float[Tensor, "s k"]
    """Of each state, as `slot_shares` gives them."""
    ahead: tuple[Float[Tensor, "_q ..."], ...]
    """Predictions one step ahead, then two, as far as the horizon and any run reach."""
    targets: tuple[Int[Tensor, " _q"], ...]
    """For each of these predictions, which of the states it has to find."""


def loss_of_rows(rows: Rows, config: LossConfig) -> SetConLoss:
    """Every prediction against all states and all other predictions as far ahead."""
    contrast = slotwise_contrastive_loss if config.unit == "slot" else contrastive_loss
    steps: list[ContrastiveLoss] = [
        contrast(predicted, rows.states, targets, config)
        for predicted, targets in zip(rows.ahead, rows.targets, strict=True)
    ]
    contrasted = replace(
        steps[0],
        loss=torch.stack([step.loss for step in steps]).mean(),
        chance=statistics.mean(step.chance for step in steps),
    )
    exclusivity = rows.shares.mean()
    lacking = config.exclusivity * (1 - exclusivity) if config.exclusivity else 0.0
    return SetConLoss(contrasted.loss + lacking, contrasted, exclusivity)
