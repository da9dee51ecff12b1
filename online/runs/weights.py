"""Weights on their way between a model and a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from online.errors import CheckpointError
from setcon.frozen import learned_state

_ELSEWHERE = "it belongs to another configuration, or to an older version"


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that safetensors can write: it refuses channels_last and shared memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Put the tensors of a checkpoint into `model`; what is frozen in it stays as it is.

    Raises CheckpointError: a name, a size or a type differs, naming the first one.
    """
    own = learned_state(model)
    for name in sorted(own.keys() ^ tensors.keys()):
        side = "the checkpoint lacks" if name in own else "the configured model has no"
        raise CheckpointError(f"{where}: {side} {name}; {_ELSEWHERE}")
    for name, tensor in sorted(tensors.items()):
        if own[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: {name} is {tuple(tensor.shape)}, the configured model needs "
                f"{tuple(own[name].shape)}; {_ELSEWHERE}"
            )
        if own[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{where}: {name} holds {tensor.dtype}, the configured model needs "
                f"{own[name].dtype}; {_ELSEWHERE}"
            )
    model.load_state_dict(tensors, strict=False)  # what was left out is frozen
