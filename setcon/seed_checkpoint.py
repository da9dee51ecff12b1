"""The 2021 PyTorch port's checkpoints: `{"state_dict", "optimizer_state_dict"}` in a `.pth.tar`.

    NAME_pretext.pth.tar   encoder.*, attn.*, transition.*, deep_set.*   load_model
    NAME_decoder.pth.tar   position_embedding.*, decoder_cnn.*           load_probe

Only tensors are unpickled. Every size is read off their shapes; what no shape says is the port's
own constant: three rounds of slot attention, and images of 128x128.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from setcon.config import (
    DecoderConfig,
    DecoderKind,
    EncoderConfig,
    EncoderKind,
    Normalisation,
    SetConConfig,
    SetEncoderConfig,
    SlotAttentionConfig,
)
from setcon.errors import SeedCheckpointError
from setcon.model import SetCon
from setcon.probe import DecoderProbe

_MODEL_NAMES = {
    "encoder.cnn.enc.": "encoder.convolutions.",
    "encoder.position_embedding.ln.": "encoder.position.linear.",
    "encoder.ln.": "encoder.norm.",
    "encoder.mlp.": "encoder.mlp.",
    "attn.slots": "slot_attention.starts",
    "attn.to_q.": "slot_attention.to_queries.",
    "attn.to_k.": "slot_attention.to_keys.",
    "attn.to_v.": "slot_attention.to_values.",
    "attn.gru.": "slot_attention.gru.",
    "attn.mlp.": "slot_attention.mlp.",
    "attn.norm_input.": "slot_attention.norm_inputs.",
    "attn.norm_slots.": "slot_attention.norm_slots.",
    "attn.norm_pre_ff.": "slot_attention.norm_mlp.",
    "transition.down_projection.": "transition.project.",
    "transition.ln.": "transition.norm.",
    "transition.lin.": "transition.out.",
    "deep_set.phi.": "set_encoder.each.",
    "deep_set.ln.": "set_encoder.norm.",
    "deep_set.rho.": "set_encoder.whole.",
}
_PROBE_NAMES = {
    "position_embedding.ln.": "decoder.position.linear.",
    "decoder_cnn.dec.": "decoder.convolutions.",
}
_ENCODERS: dict[int, EncoderKind] = {5: "small", 7: "normal", 9: "large"}  # by convolutions
_DECODERS: dict[int, DecoderKind] = {5: "small", 7: "normal", 9: "large"}


def load_model(path: str | Path) -> SetCon:
    """The port's encoder, slot attention, transition and set encoder, in evaluation mode.

    Raises SeedCheckpointError for anything else than such a file.
    """
    state = _read(Path(path), _MODEL_NAMES, wanted="model")
    try:
        starts = state["slot_attention.starts"]
        state["slot_attention.starts"] = starts.flatten(0, -2)  # the port has a batch axis of one
        config = _model_config(state)
    except (KeyError, IndexError) as error:
        raise SeedCheckpointError(f"{path}: not a model of the port: no size in {error}") from error
    with torch.device(
        "meta"
    ):  # allocates nothing and draws nothing: every tensor comes from the file
        model = SetCon(config)
    _fill(model, state, path)
    return model.eval()


def load_probe(path: str | Path, *, image_size: tuple[int, int] = (128, 128)) -> DecoderProbe:
    """The port's decoder, in evaluation mode, for images of (height, width), which no file holds.

    Raises SeedCheckpointError for anything else than such a file.
    """
    state = _read(Path(path), _PROBE_NAMES, wanted="decoder")
    try:
        config = DecoderConfig(
            kind=_DECODERS[_convolutions(state, "decoder.")], normalisation=_normalisation(state)
        )
        slot_size = len(state["decoder.position.linear.weight"])
    except KeyError as error:
        raise SeedCheckpointError(
            f"{path}: not a decoder of the port: no size in {error}"
        ) from error
    with torch.device("meta"):
        probe = DecoderProbe(config, slot_size=slot_size, image_size=image_size)
    _fill(probe, state, path)
    return probe.eval()


def _model_config(state: dict[str, Tensor]) -> SetConConfig:
    num_slots, slot_size = state["slot_attention.starts"].shape
    layers = sum(name.startswith("set_encoder.each.") for name in state) // 2  # weight and bias
    return SetConConfig(
        center_inputs=False,
        encoder=EncoderConfig(
            kind=_ENCODERS[_convolutions(state, "encoder.")],
            width=len(state["encoder.norm.weight"]),
            normalisation=_normalisation(state),
        ),
        slot_attention=SlotAttentionConfig(
            num_slots=num_slots,
            slot_size=slot_size,
            hidden_size=len(state["slot_attention.mlp.0.weight"]),
            iterations=3,
        ),
        set_encoder=SetEncoderConfig(
            hidden_size=len(state["set_encoder.norm.weight"]),
            output_size=len(state[f"set_encoder.whole.{2 * (layers - 1)}.weight"]),
            depth=layers,
            activation="elu",
        ),
    )


def _convolutions(state: dict[str, Tensor], prefix: str) -> int:
    return sum(name.startswith(prefix) and tensor.ndim == 4 for name, tensor in state.items())


def _normalisation(state: dict[str, Tensor]) -> Normalisation:
    return "batch" if any(name.endswith("running_mean") for name in state) else "none"


def _read(path: Path, names: dict[str, str], *, wanted: str) -> dict[str, Tensor]:
    """The state dict of a file under our names."""
    if not path.is_file():
        raise SeedCheckpointError(f"{path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load lets out whatever zip, tar and pickle raise
        raise SeedCheckpointError(f"{path}: not a checkpoint that torch can read safely") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise SeedCheckpointError(f"{path}: not a checkpoint of the port: it has no 'state_dict'")
    found = {str(name): tensor for name, tensor in checkpoint["state_dict"].items()}
    for name, tensor in found.items():
        if not _renamed(name, names):
            problem = f"unknown tensor {name!r}{_remedy(name)}"
        elif not isinstance(tensor, Tensor):
            problem = f"{name} is not a tensor"
        else:
            continue
        raise SeedCheckpointError(f"{path}: not a {wanted} of the port: {problem}")
    return {_renamed(name, names): tensor for name, tensor in found.items()}


def _renamed(name: str, names: dict[str, str]) -> str:
    """Our name for a tensor, empty if it has none."""
    prefix = next((prefix for prefix in names if name.startswith(prefix)), None)
    return "" if prefix is None else names[prefix] + name.removeprefix(prefix)


def _remedy(name: str) -> str:
    """What to do with a tensor of the port's other kind of file."""
    if _renamed(name, _PROBE_NAMES):
        return "; this is a decoder, use load_probe"
    if _renamed(name, _MODEL_NAMES):
        return "; this is a model, use load_model"
    return ""


def _fill(module: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Put the tensors of the file in place of the module's own."""
    expected = module.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        found, needed = state.get(name), expected.get(name)
        if found is None or needed is None or found.shape != needed.shape:
            raise SeedCheckpointError(
                f"{path}: {name} has shape {_shape(found)}, but the other tensors of the file "
                f"need {_shape(needed)}"
            )
    module.load_state_dict(state, assign=True)


def _shape(tensor: Tensor | None) -> str:
    return "none (missing)" if tensor is None else str(tuple(tensor.shape))
