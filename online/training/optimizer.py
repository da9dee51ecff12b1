"""From gradients to a step: which optimizer, its rate, steps along what is new in a gradient, and
the running mean of the weights.

rate(step) = learning_rate · min(1, (step + 1) / warmup_steps)
average:     w̄ ← w̄ + max(1 / average_steps, 10 / (step + 10)) · (w - w̄)
orthogonal:  g ← g - c (g·c) / (c·c),   c ← decay · c + (1 - decay) · g     for each parameter
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from online.training.config import OptimizerConfig
from setcon.frozen import learned_state
from setcon.model import SetCon

_PAST = "past_gradient"


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """The optimizer that a configuration asks for, of the parameters that are not frozen."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.kind == "rmsprop":
        return torch.optim.RMSprop(trained, lr=rate, weight_decay=decay)
    # fused, one call for all parameters: small models have many small ones
    return torch.optim.Adam(trained, lr=rate, weight_decay=decay, fused=True)


def learning_rate(config: OptimizerConfig, *, steps_taken: int) -> float:
    """Rate of the next step: it rises linearly, and then stays."""
    warm = min(1.0, (steps_taken + 1) / max(1, config.warmup_steps))
    return config.learning_rate * warm


def take_step(optimizer: torch.optim.Optimizer, *, rate: float, orthogonal: float) -> None:
    """One step along the gradients; with a decay `orthogonal`, along what is new in them."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    if orthogonal:
        _orthogonal_step(optimizer, decay=orthogonal)
    else:
        optimizer.step()


@torch.no_grad()
def average_into(mean: SetCon, model: SetCon, *, steps_taken: int, average_steps: int) -> None:
    """Move a running mean towards the weights of `model`, which has taken another step.

    The rate stays constant, and labels are wrong now and then: single weights wander, their mean
    does not (Polyak and Juditsky 1992). Early weights count for little (Shamir and Zhang 2013,
    section 4, with eta = 9).
    """
    weight = max(1 / average_steps, 10 / (steps_taken + 9))
    newest = learned_state(model)
    for name, value in learned_state(mean).items():
        if value.is_floating_point():
            value.lerp_(newest[name], weight)
        else:
            value.copy_(newest[name])


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up the moments of a checkpoint, in the memory layout that training gives them."""
    optimizer.load_state_dict(state)
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.ndim:
                if value.shape != parameter.shape:
                    raise ValueError(
                        f"{name} of a parameter of {tuple(parameter.shape)} is {tuple(value.shape)}"
                    )
                # same sums in the same order as a run that never stopped
                entries[name] = torch.empty_like(parameter).copy_(value)


def _orthogonal_step(optimizer: torch.optim.Optimizer, *, decay: float) -> None:
    """The running mean of past gradients joins the optimizer's state, and so checkpoints."""
    state = optimizer.state
    raw: list[tuple[Tensor, Tensor]] = []
    for parameter in _parameters(optimizer):
        if parameter.grad is None:
            continue
        gradient = parameter.grad.clone()
        raw.append((parameter, gradient))
        past = state[parameter].get(_PAST) if parameter in state else None
        if past is not None and (square := past.square().sum()) > 0:
            parameter.grad -= past * ((gradient * past).sum() / square)
    optimizer.step()
    # only now: an optimizer takes a parameter with a state for one that it has stepped before
    for parameter, gradient in raw:
        past = state[parameter].setdefault(_PAST, torch.zeros_like(gradient))
        past.lerp_(gradient, 1 - decay)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
