"""An encoder of the library timm, frozen or tuned, and what is learned on top of it.

    maps_l = layer l of the model, for reductions of 4 to 16, or its last layer
    h1 = Σ_l Linear(LayerNorm(maps_l)) + Linear(position)     at a quarter of the resolution
    h  = MLP(LayerNorm(h1))

Where the model is frozen, `maps` depend on an image alone: they can be kept, and given to `read`.
They are in bfloat16 then, so that what is kept is what is seen. A checkpoint holds no frozen
weights; it holds a fingerprint of them, so that a run never goes on with others.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Float
from torch import Tensor, nn

from setcon.config import TimmConfig
from setcon.errors import EncoderError
from setcon.layers import mlp
from setcon.position import PositionEmbedding

log = logging.getLogger(__name__)

REDUCTION = 4
"""Of the grid that features are on, as of the cells that objects are found in."""
_COARSEST = 16
"""Reduction of maps that are looked at: beyond it an object is a position or two."""
_WRONG_BUILD = "operator torchvision::"
_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class TimmEncoder(nn.Module):
    """Images of any size to features."""

    mean: Tensor
    std: Tensor
    fingerprint: Tensor

    def __init__(self, config: TimmConfig, *, width: int) -> None:
        """Raises EncoderError where timm, the model or its weights are not to be had."""
        super().__init__()
        self.config = config
        self.feature_size = width
        self.backbone = _backbone(config)
        self.layers = _layers(self.backbone)
        self.backbone.prune_intermediate_layers(self.layers, prune_norm=False, prune_head=True)
        channels = [each["num_chs"] for each in self.backbone.feature_info]
        chosen = [channels[layer] for layer in self.layers]
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in chosen)
        self.projections = nn.ModuleList(nn.Linear(size, width) for size in chosen)
        self.position = PositionEmbedding(width)
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp([width, width, width])
        cfg = self.backbone.pretrained_cfg
        for name in ("mean", "std"):
            values = torch.tensor(cfg[name])[:, None, None]
            self.register_buffer(name, values, persistent=False)
        if not config.tuned:
            self.backbone.requires_grad_(False).eval()  # also before the model is put into a mode
            self.register_buffer("fingerprint", _fingerprint(self.backbone))
            self.register_load_state_dict_pre_hook(_check_fingerprint)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n p c"]:
        """Features of every position, row by row."""
        return self.read(self.maps(images), height=images.shape[-2], width=images.shape[-1])

    def maps(self, images: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _c _r _s"]]:
        """What the layers of the model make of images."""
        sides = [self._whole(round(side * self.config.enlarge)) for side in images.shape[-2:]]
        if sides != list(images.shape[-2:]):
            images = F.interpolate(images, sides, mode="bilinear", antialias=True)
        inputs = (images - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.tuned):
            found = self.backbone.forward_intermediates(
                inputs, indices=self.layers, output_fmt="NCHW", intermediates_only=True
            )
        return found if self.config.tuned else [each.bfloat16() for each in found]

    def read(
        self, maps: Sequence[Float[Tensor, "n _c _r _s"]], *, height: int, width: int
    ) -> Float[Tensor, "n p c"]:
        """Features of images of this size that have these `maps`."""
        grid = self.grid_size(height, width)
        total = self.position(*grid)
        for each, norm, project in zip(maps, self.norms, self.projections, strict=True):
            projected = project(norm(each.to(self.norm.weight.dtype).movedim(1, -1))).movedim(-1, 1)
            fitted = F.interpolate(projected, grid, mode="bilinear", align_corners=False)
            total = total + fitted.flatten(2).transpose(1, 2)
        return self.mlp(self.norm(total))

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the positions of an image of this size: p = rows * columns."""
        return -(-height // REDUCTION), -(-width // REDUCTION)

    def _whole(self, side: int) -> int:
        """The next side that is whole patches, of models that have patches."""
        patch = self._patch
        return -(-side // patch) * patch

    @property
    def _patch(self) -> int:
        embedding = getattr(self.backbone, "patch_embed", None)
        size = getattr(embedding, "patch_size", 1)
        return max(size) if isinstance(size, Sequence) else size


def _backbone(config: TimmConfig) -> Any:
    """The model with its weights, all of them."""
    timm = imported_timm()
    if config.weights and not Path(config.weights).is_file():
        raise EncoderError(
            f"model.encoder.timm.weights: {config.weights} is not a file; name a .safetensors or "
            ".pth file, or leave it empty to download timm's own"
        )
    name = config.name
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models())
        raise EncoderError(
            f"model.encoder.timm.name: timm {timm.__version__} has no model {name!r}"
            + (f"; it has {', '.join(near)}" if near else "; timm.list_models() lists them")
        )
    overlay = {"file": config.weights, "custom_load": False} if config.weights else None
    fixed = timm.get_pretrained_cfg(name, allow_unregistered=True)
    options = {"dynamic_img_size": True} if fixed is not None and fixed.fixed_input_size else {}
    source = config.weights or "its weights"
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except Exception as error:  # of timm, of the hub, of the network or of the file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise EncoderError(
            f"model.encoder.timm.name: {name} could not be made from {source}: {reason[0]}"
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise EncoderError(f"model.encoder.timm.name: {name} gives no maps of its layers")
    if config.tuned:  # a few frames of one clip are no sample of the statistics
        importlib.import_module("timm.layers").freeze_batch_norm_2d(model)
    return model


def imported_timm() -> ModuleType:
    """The library, next to a torchvision that was built for this torch or for another.

    Raises EncoderError where it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"model.encoder.kind: timm needs the package {error.name}; pip install -e '.[timm]'"
        ) from error
    except RuntimeError as error:
        if _WRONG_BUILD not in str(error):
            raise
    # It was built for another build of torch, such as PyPI's next to one for CPUs. What it fails at
    # is the shapes of two operators, which no encoder uses; calling them still fails.
    log.warning(
        "torchvision was not built for torch %s; its operators are left out", torch.__version__
    )
    for operator in _OPERATORS:
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", _SIGNATURE)
    return importlib.import_module("timm")


def _layers(backbone: Any) -> list[int]:
    """The last layer of each reduction that is looked at, or the last of all."""
    info = list(backbone.feature_info)
    last = {each["reduction"]: index for index, each in enumerate(info)}
    chosen = [index for reduction, index in last.items() if REDUCTION <= reduction <= _COARSEST]
    return sorted(chosen) or [len(info) - 1]


def _fingerprint(backbone: nn.Module) -> Tensor:
    """32 bytes that differ where any weight does."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _check_fingerprint(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    saved = state.get(f"{prefix}fingerprint")
    assert isinstance(module, TimmEncoder)
    if saved is not None and not torch.equal(saved.cpu(), module.fingerprint.cpu()):
        raise EncoderError(
            f"model.encoder.timm: the weights of {module.config.name} are not those that this "
            "was learned with; name their file in model.encoder.timm.weights, in the run's "
            "config.toml"
        )
