"""A slot that helps to tell no frames apart, and where it may start again.

    importance_k = contrast of a batch without slot k - contrast with all slots
    largest      = the slot that reads most of all positions: the background
    idle         = the least important of the others, if below IDLE_SHARE of what they come to

A slot idles where another holds the same thing, or where it halves the background. Nothing in the
loss moves it from there: what a slot reads is a mean, so that it holds a thing however little of it
it reads. Meanwhile a thing may lie in the background's slot, from which nothing fetches it either.
It moves, and the background does not: of what the largest slot reads, its keys are farthest from
the mean key of their position. The idle slot starts again from a vector whose query wins such keys
from the largest slot, and loses the mean of its keys to it. What other slots start from stays.
Dead entries of codebooks are given new places so (Dhariwal et al. 2020, section 3.1).
"""

import statistics
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from setcon.loss import LossConfig
from setcon.model import Matching, SetCon, SetConOutput
from setcon.slot_attention import SlotAttention

IDLE_SHARE = 0.25
"""Of the other slots' mean importance: below it, a slot is idle."""
LEAST_SLOTS = 3
"""The largest, and two to compare."""
_MOVED = 0.02  # share of positions whose keys are taken for those of things that moved
_OF_ONE_THING = 0.3  # share of these, nearest to the farthest
_MARGIN = 3.0  # in logits, about 20 to 1
_SOLVER_STEPS = 200
_SOLVER_RATE = 0.05


def largest_slot(output: SetConOutput, matching: Matching) -> int:
    """The slot that reads most of all positions."""
    return int(output.attention.flatten(0, 1)[matching.states].sum(dim=(0, 2)).argmax())


def slot_importance(
    model: SetCon, output: SetConOutput, config: LossConfig, matching: Matching
) -> list[float]:
    """By how much the contrast of one step ahead is greater without each slot."""
    next_frame = Matching(matching.states, matching.ahead[:1])
    config = replace(config, unit="set", horizon=1, exclusivity=0.0)

    def contrast(slots: list[int]) -> float:
        part = SetConOutput(
            slots=output.slots[:, :, slots],
            predicted=output.predicted[:, :, slots],
            attention=output.attention[:, :, slots],
        )
        return float(model.loss(part, config, matching=next_frame).contrast.loss)

    every = list(range(output.slots.shape[2]))
    whole = contrast(every)
    return [contrast([other for other in every if other != slot]) - whole for slot in every]


def idle_slot(importance: list[float], *, largest: int) -> int | None:
    """The least important slot, if the others but for the largest are by far more so."""
    others = [slot for slot in range(len(importance)) if slot != largest]
    if len(importance) < LEAST_SLOTS:
        return None
    least = min(others, key=lambda slot: importance[slot])
    usual = statistics.mean(importance[slot] for slot in others if slot != least)
    return least if usual > 0 and importance[least] < IDLE_SHARE * usual else None


def start_at_what_moves(
    model: SetCon, images: Float[Tensor, "n 3 h w"], *, slot: int, largest: int
) -> Float[Tensor, " d"]:
    """What `slot` is to start from, to take from the largest slot what moves in it."""
    attention = model.slot_attention
    with torch.no_grad():
        features = model.features(images)
        keys = attention.keys(features).float()
        share = attention(features).attention[:, largest].float()
        moved = (keys - keys.mean(dim=0)).norm(dim=-1) * share
        strongest = moved.flatten().topk(max(1, round(_MOVED * moved.numel()))).indices
        candidates = keys.flatten(0, 1)[strongest]  # the farthest first
        distance = (candidates - candidates[0]).norm(dim=-1)
        near = distance.topk(max(1, round(_OF_ONE_THING * len(distance))), largest=False).indices
        wanted = candidates[near].mean(dim=0)
        usual = (keys * share.unsqueeze(-1)).sum(dim=(0, 1)) / share.sum()
    return _start(attention, slot=slot, against=largest, wanted=wanted, usual=usual)


def _start(
    attention: SlotAttention,
    *,
    slot: int,
    against: int,
    wanted: Float[Tensor, " d"],
    usual: Float[Tensor, " d"],
) -> Float[Tensor, " d"]:
    """A start whose logits beside another's are a margin higher at one key, lower at the other."""
    theirs = attention.queries(attention.starts[against]).detach()
    start = attention.starts[slot].detach().clone().requires_grad_()
    solver = torch.optim.Adam([start], lr=_SOLVER_RATE)
    for _ in range(_SOLVER_STEPS):
        ahead = attention.queries(start) - theirs
        error = (ahead @ wanted - _MARGIN).square() + (ahead @ usual + _MARGIN).square()
        (start.grad,) = torch.autograd.grad(error, start)
        solver.step()
    return start.detach()
