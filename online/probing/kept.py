"""Fitted probes in files, used again on the footage that they were fitted on.

    probe.safetensors       of the trained encoder
    untrained.safetensors   of the untrained one
      metadata: key, model, image_size, slots, slot_size, train_mse

The key is a checksum of the training footage and the probe's settings, `model` one of its weights:
where both are the same, fitting again would give the same probe. Each is written as soon as it is
fitted, so that an evaluation that is interrupted need not fit it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ingest.disk.checksum import crc32c
from ingest.disk.durable import write_whole
from online.probing.encoded import CutFootage
from setcon.config import ProbeConfig
from setcon.model import SetCon
from setcon.probe import DecoderProbe, FittedProbe
from setcon.whitening import SlotWhitening

TRAINED_FILE, UNTRAINED_FILE = "probe.safetensors", "untrained.safetensors"
_UNREADABLE = (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError)
"""What a file that is damaged, or of other settings, raises."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptProbe:
    """A probe, and what it was fitted on."""

    key: str
    fitted: FittedProbe
    model: str | None = None
    """`model_key` of what made the slots; files of older versions do not say it."""

    def suits(self, key: str, model: SetCon) -> bool:
        """Whether fitting one anew would give the same."""
        return self.key == key and self.model in (None, model_key(model))


@dataclass(frozen=True, slots=True, eq=False)
class KeptProbes:
    """The probes of one evaluation; None for one that is not there."""

    trained: KeptProbe | None = None
    untrained: KeptProbe | None = None


NO_PROBES = KeptProbes()


def probe_key(cut: CutFootage, config: ProbeConfig) -> str:
    """What decides the probe of one model, as a checksum."""
    what = f"{config}{cut.clip}{cut.footage.images.shape}".encode()
    return f"{crc32c(what):08x}{crc32c(cut.footage.images.tobytes()):08x}"


def model_key(model: SetCon) -> str:
    """A checksum of the weights and buffers of a model."""
    key = 0
    for tensor in model.state_dict().values():
        # as it is evaluated, whatever it was trained in
        key = crc32c(tensor.detach().float().cpu().numpy().tobytes(), key)
    return f"{key:08x}"


def save_probes(folder: Path, probes: KeptProbes) -> None:
    """Keep the probes of an evaluation in its folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kept in ((TRAINED_FILE, probes.trained), (UNTRAINED_FILE, probes.untrained)):
        if kept is not None:
            _save(folder / name, kept)


def load_probes(folder: Path, config: ProbeConfig, *, device: torch.device) -> KeptProbes:
    """The probes of an evaluation that can be read."""
    return KeptProbes(
        trained=_load(folder / TRAINED_FILE, config, device),
        untrained=_load(folder / UNTRAINED_FILE, config, device),
    )


def _save(path: Path, kept: KeptProbe) -> None:
    probe = kept.fitted.probe
    state = {name: tensor.cpu().contiguous() for name, tensor in probe.state_dict().items()}
    whitening = probe.whitening
    about = {
        "key": kept.key,
        "model": kept.model,
        "image_size": list(probe.image_size),
        "slots": list(whitening.mean.shape) if isinstance(whitening, SlotWhitening) else None,
        "slot_size": probe.slot_size,
        "train_mse": kept.fitted.train_mse,
    }
    write_whole(path, save(state, metadata={"probe": json.dumps(about)}))


def _load(path: Path, config: ProbeConfig, device: torch.device) -> KeptProbe | None:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["probe"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        height, width = about["image_size"]
        probe = DecoderProbe(
            config.decoder,
            slot_size=about["slot_size"],
            image_size=(height, width),
            whitening=SlotWhitening(*about["slots"]) if about["slots"] else None,
        )
        probe.load_state_dict(state)
        fitted = FittedProbe(probe.to(device).eval(), about["train_mse"])
        return KeptProbe(about["key"], fitted, about.get("model"))
    except _UNREADABLE:
        return None
