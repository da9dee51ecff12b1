"""What processes that share a batch exchange in a step, so that one could have taken it alone.

    own rows ──all_gather──▶ rows of all ─▶ loss of all ─▶ own share of the gradient ──sum──▶ step

Each process computes the loss of all rows, but only its own rows carry gradients. So gradients are
summed: a mean over n processes, as DistributedDataParallel takes it, is 1/n of the gradient, which
Adam hides, and the gradient of local rows alone lacks the negatives of the others. BatchNorm's
statistics are those of all images. Everything is exact up to the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor, nn

from online.errors import ConfigError
from setcon.frozen import is_frozen
from setcon.layers import at_least_float32
from setcon.matching import Matching, match
from setcon.rows import Rows


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A batch of all processes, of which this one has some clips."""

    valid: Bool[Tensor, "b l"]
    """As in Batch, of the clips of all: process after process."""
    runs: tuple[range, ...]
    """Which clips each process has."""
    rank: int

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]], *, rank: int, overlap: int) -> Shared:
        """`lengths` are the frames of each clip of each process; `overlap` those that predict."""
        every = torch.tensor([length for each in lengths for length in each])
        triplets = torch.arange(int(every.max()) - overlap)
        ends = [0]
        for each in lengths:
            ends.append(ends[-1] + len(each))
        runs = tuple(map(range, ends[:-1], ends[1:]))
        return cls(triplets < every[:, None] - overlap, runs, rank)

    def parts(self, *, num_frames: int, horizon: int) -> list[Matching]:
        """What `match` says of the clips of each process; targets are among the states of all."""
        whole = match(self.valid, num_frames=num_frames, horizon=horizon)
        count = self.valid.shape[1]
        return [whole.part(runs, num_frames=num_frames, num_predicted=count) for runs in self.runs]


class Exchange:
    """This process among those of the default process group."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def rows(self, own: Rows, parts: Sequence[Matching]) -> Rows:
        """The rows of all processes, process after process; `parts` say how many each has."""
        tensors = [own.states, own.shares, *own.ahead]
        counts = [
            [len(part.states), len(part.states), *(len(a.predictions) for a in part.ahead)]
            for part in parts
        ]
        states, shares, *ahead = self._gathered(tensors, counts)
        targets = tuple(
            torch.cat([part.ahead[step].targets for part in parts])
            for step in range(len(own.ahead))
        )
        return Rows(states, shares, tuple(ahead), targets)

    def total(self, number: Tensor) -> Tensor:
        """The sum of a number over all processes, without gradients."""
        total = number.detach().clone()
        dist.all_reduce(total)
        return total

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up each parameter's gradients of all processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, summed in zip(gradients, parts, strict=True):
            gradient.copy_(summed.view(gradient.shape))

    def _gathered(self, own: Sequence[Tensor], counts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Each of these tensors with the rows of all processes; own rows keep their gradients."""
        sizes = [math.prod(tensor.shape[1:]) for tensor in own]
        lengths = [
            [size * count for size, count in zip(sizes, each, strict=True)] for each in counts
        ]
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in own])
        longest = max(map(sum, lengths))
        padded = nn.functional.pad(flat, (0, longest - len(flat)))
        received = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(received, padded)
        by_rank = [
            list(own) if rank == self.rank else _cut(data, length, own)
            for rank, (data, length) in enumerate(zip(received, lengths, strict=True))
        ]
        return [torch.cat(each) for each in zip(*by_rank, strict=True)]


def _cut(data: Tensor, lengths: Sequence[int], like: Sequence[Tensor]) -> list[Tensor]:
    parts = data[: sum(lengths)].split(list(lengths))
    return [part.view(-1, *tensor.shape[1:]) for part, tensor in zip(parts, like, strict=True)]


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm by the statistics of the images of all processes, on any device.

    `nn.SyncBatchNorm` takes no tensors on the CPU.
    """

    @classmethod
    def like(cls, layer: nn.BatchNorm2d) -> SharedBatchNorm:
        """One with the parameters and buffers of `layer` itself."""
        shared = cls(layer.num_features, layer.eps, layer.momentum)
        shared.weight, shared.bias = layer.weight, layer.bias
        shared.running_mean, shared.running_var = layer.running_mean, layer.running_var
        shared.num_batches_tracked = layer.num_batches_tracked
        return shared.train(layer.training)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """As BatchNorm2d; while training, all processes must call it."""
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):  # bfloat16 would round the count
            return self._normalised(at_least_float32(input)).to(input.dtype)

    def _normalised(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        count, axes = _Sum.apply(input.new_tensor(input.numel() / input.shape[1])), (0, 2, 3)
        mean = _Sum.apply(input.sum(dim=axes)) / count
        centred = input - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(dim=axes)) / count
        self._count(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _count(self, mean: Float[Tensor, " c"], variance: Float[Tensor, " c"]) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)


def share_statistics(model: nn.Module) -> None:
    """Let every BatchNorm that is trained take the statistics of all processes.

    Raises ConfigError where one does more than BatchNorm2d, which would be lost.
    """
    for name, child in model.named_children():
        if is_frozen(child):
            continue
        if type(child) is nn.BatchNorm2d:
            setattr(model, name, SharedBatchNorm.like(child))
        elif isinstance(child, nn.BatchNorm2d):
            raise ConfigError(
                f"model: layer {name} is of type {type(child).__name__}, whose statistics several "
                "ranks cannot share; use --ranks 1"
            )
        else:
            share_statistics(child)
