"""Which frames of runs are states, and which of them each prediction has to find.

frames       f0 f1 f2 f3 f4  f0 f1 f2 --        two runs, the second filled up
states       0  1  2  3  4   5  6  7
predictions        p0 p1 p2        p3           p0 has to find state 2, p3 state 7
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """The predictions that count, so many steps ahead."""

    predictions: Int[Tensor, " q"]
    """Their indices among the predictions of all runs, one run after another."""
    targets: Int[Tensor, " q"]
    """For each prediction, which of the states it has to find."""


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """Which frames of runs are states, and which of them each prediction has to find.

    By numbers and not by masks, so that no shape depends on what a GPU holds.
    """

    states: Int[Tensor, " s"]
    """Their indices among the frames of all runs, one run after another."""
    ahead: tuple[Ahead, ...]
    """One step ahead, then two, as far as the horizon and any run reach."""

    def tensors(self) -> tuple[Int[Tensor, " _n"], ...]:
        """All of it in a row, as `of` takes it."""
        return (self.states, *(each for a in self.ahead for each in (a.predictions, a.targets)))

    @classmethod
    def of(cls, states: Int[Tensor, " s"], *ahead: Int[Tensor, " _n"]) -> "Matching":
        """The matching that has these `tensors`."""
        return cls(states, tuple(map(Ahead, ahead[::2], ahead[1::2])))

    def part(self, runs: range, *, num_frames: int, num_predicted: int) -> "Matching":
        """What it says of some of the runs alone; targets stay among the states of all runs.

        Runs have `num_frames`, of which the last `num_predicted` are predicted one step ahead.
        """
        stride = (num_frames - num_predicted) // 2
        ahead = []
        for step, counted in enumerate(self.ahead):
            width = num_predicted - step * stride
            ours = _is_within(counted.predictions, runs, width)
            indices = counted.predictions[ours] - runs.start * width
            ahead.append(Ahead(indices, counted.targets[ours]))
        states = self.states[_is_within(self.states, runs, num_frames)]
        return Matching(states - runs.start * num_frames, tuple(ahead))


def match(valid: Bool[Tensor, "b t_predicted"], *, num_frames: int, horizon: int = 1) -> Matching:
    """The states among frames, and the own state of each prediction that counts.

    `valid` says which predictions of one step do: those of the last frames of runs of `num_frames`.
    A run counts up to its last valid prediction; what it is filled up with after that does not.
    """
    b, triplets = valid.shape
    span = num_frames - triplets
    ends = torch.arange(1, triplets + 1, device=valid.device) + span
    length = (valid * ends).amax(dim=1, keepdim=True)
    states = torch.arange(num_frames, device=valid.device).expand(b, -1) < length
    own = (states.flatten().cumsum(0).view(b, -1) - 1)[:, span:]
    ahead: list[Ahead] = []
    for skipped in range(0, min(triplets, horizon * span // 2), span // 2):
        reached = valid[:, skipped:]
        if ahead and not reached.any():
            break
        ahead.append(Ahead(_which(reached), own[:, skipped:][reached]))
    return Matching(_which(states), tuple(ahead))


def _which(mask: Bool[Tensor, "b n"]) -> Int[Tensor, " m"]:
    return mask.flatten().nonzero().squeeze(1)


def _is_within(indices: Int[Tensor, " n"], runs: range, width: int) -> Bool[Tensor, " n"]:
    return (indices >= runs.start * width) & (indices < runs.stop * width)
