"""The model that a run begins with, and how this process computes with it."""

from __future__ import annotations

import copy
import os

import torch

from online.errors import ConfigError
from online.ranks import rank_here
from online.training.config import TrainingConfig
from setcon.config import SetConConfig
from setcon.model import SetCon

LEAST_SIDE = 16
"""Pixels of frames in which objects are found: of smaller ones nothing is left to be registered."""


def untrained_model(config: SetConConfig, *, seed: int) -> SetCon:
    """The model that a run with this seed begins with; draws from torch's global generator.

    Raises ConfigError: it does not fit into memory.
    """
    torch.manual_seed(seed)
    try:
        return SetCon(config)
    except (MemoryError, RuntimeError) as error:  # torch says out of memory with a RuntimeError
        raise ConfigError(
            f"model: {_num_parameters(config)} parameters do not fit into memory; "
            "lower model.encoder.width, or sizes in model.slot_attention, model.transition or "
            "model.set_encoder"
        ) from error


def untrained_twin(model: SetCon) -> SetCon:
    """A copy of a model that will be trained, in evaluation mode, which stays as it is."""
    return copy.deepcopy(model).eval()


def arranged(model: SetCon, config: TrainingConfig, device: torch.device) -> SetCon:
    """`model` on `device`, its weights in the memory layout and the type of training."""
    model = model.to(weight_dtype(config))
    return model.to(device=device, memory_format=layout(config))  # type: ignore[call-overload]


def layout(config: TrainingConfig) -> torch.memory_format:
    """Memory layout of images and convolutions."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def weight_dtype(config: TrainingConfig) -> torch.dtype:
    """Type of the weights, which stay in float32 where the encoder computes in bfloat16."""
    return torch.float64 if config.precision == "float64" else torch.float32


def in_float32(model: SetCon) -> SetCon:
    """The model itself or, where its weights are of another type, a copy."""
    if next(model.parameters()).dtype == torch.float32:
        return model
    return copy.deepcopy(model).float()


def check_frame_size(model: SetCon, *, height: int, width: int) -> None:
    """Refuse frames that the model cannot encode.

    Raises ConfigError: naming the section and the size.
    """
    if model.config.finds_objects and min(height, width) < LEAST_SIDE:
        raise ConfigError(
            f"model.slot_attention.starts: objects are found in frames of at least {LEAST_SIDE} "
            f"pixels a side, these are {width}x{height}; ingest with another --size"
        )


def default_device() -> torch.device:
    """A CUDA device where there is one, for each rank of a run its own, else the CPU."""
    return own_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def own_device(device: torch.device) -> torch.device:
    """`device`; of several GPUs, one rank of a run takes one.

    Raises ConfigError: all ranks would share one, or there are fewer GPUs than ranks.
    """
    here = rank_here()
    if here.size == 1 or device.type != "cuda":
        return device
    if device.index is not None:
        raise ConfigError(
            f"--device {device}: each of {here.size} ranks needs a GPU of its own; use cuda"
        )
    count = torch.cuda.device_count()
    if 0 < count <= here.local_rank:
        raise ConfigError(
            f"{here.size} ranks, {count} GPUs on this machine; use --ranks {count} or --device cpu"
        )
    return torch.device("cuda", here.local_rank)


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether `precision` means bfloat16 on this device."""
    if precision != "auto":
        return precision == "bfloat16"
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def set_determinism(config: TrainingConfig) -> None:
    """Make torch, in this process, as repeatable as `config` asks; before any CUDA call."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS refuses
    if config.threads:
        torch.set_num_threads(config.threads)
    # as `use_deterministic_algorithms`, which imports torch's compiler for over a second; that
    # would be told too, and is not used here
    torch.set_deterministic_debug_mode("error" if config.deterministic else "default")
    # else each tensor is filled before it is written, which takes up to a twentieth of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _num_parameters(config: SetConConfig) -> str:
    try:
        with torch.device("meta"):  # shapes without memory
            return f"{sum(p.numel() for p in SetCon(config).parameters()):,}"
    except RuntimeError:
        return "more than 2**63"
