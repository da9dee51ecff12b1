"""SetCon: slot attention learned by contrasting sets of slots, after Löwe et al. 2020.

Axis letters, in every shape of this package:

    b   runs of frames in a batch          n   images, where time does not matter
    t   time, earliest first               c   channels, or size of a feature
    k   slots                              h   rows of an image
    d   size of a slot                     w   columns of an image
    e   size of the vector for a set       p   positions of an image, row by row

The paper is arXiv 2011.10287. Images are RGB floats in [0, 1]. Nothing here knows of video, stores
or queues; `load` alone leads to `online`, which does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from online.analysis.opened import load_run as load
    from setcon.config import (
        DecoderConfig,
        EncoderConfig,
        LossConfig,
        ProbeConfig,
        SetConConfig,
        SetEncoderConfig,
        SlotAttentionConfig,
        TimmConfig,
        TransitionConfig,
    )
    from setcon.encoders import Encoder, build_encoder
    from setcon.errors import EncoderError, SeedCheckpointError, SetConError
    from setcon.export import export_encoder
    from setcon.loss import ContrastiveLoss, SetConLoss
    from setcon.matching import Matching, match
    from setcon.measures.metrics import (
        alpha_labels,
        ari,
        attention_labels,
        fg_ari,
        mbo,
        miou,
        mse,
        psnr,
    )
    from setcon.model import SetCon, SetConOutput
    from setcon.probe import DecoderProbe, FittedProbe, Reconstruction, fit_probe
    from setcon.rows import Rows
    from setcon.seed_checkpoint import load_model, load_probe
    from setcon.slots.slot_attention import Slots
    from setcon.supervoxels.supervoxels import Supervoxels
    from setcon.whitening import SlotWhitening

__all__ = [
    "ContrastiveLoss",
    "DecoderConfig",
    "DecoderProbe",
    "Encoder",
    "EncoderConfig",
    "EncoderError",
    "FittedProbe",
    "LossConfig",
    "Matching",
    "ProbeConfig",
    "Reconstruction",
    "Rows",
    "SeedCheckpointError",
    "SetCon",
    "SetConConfig",
    "SetConError",
    "SetConLoss",
    "SetConOutput",
    "SetEncoderConfig",
    "SlotAttentionConfig",
    "SlotWhitening",
    "Slots",
    "Supervoxels",
    "TimmConfig",
    "TransitionConfig",
    "alpha_labels",
    "ari",
    "attention_labels",
    "build_encoder",
    "export_encoder",
    "fg_ari",
    "fit_probe",
    "load",
    "load_model",
    "load_probe",
    "match",
    "mbo",
    "miou",
    "mse",
    "psnr",
]

_HOMES = {
    "ContrastiveLoss": "setcon.loss",
    "DecoderConfig": "setcon.config",
    "DecoderProbe": "setcon.probe",
    "Encoder": "setcon.encoders",
    "EncoderConfig": "setcon.config",
    "EncoderError": "setcon.errors",
    "FittedProbe": "setcon.probe",
    "LossConfig": "setcon.config",
    "Matching": "setcon.matching",
    "ProbeConfig": "setcon.config",
    "Reconstruction": "setcon.probe",
    "Rows": "setcon.rows",
    "SeedCheckpointError": "setcon.errors",
    "SetCon": "setcon.model",
    "SetConConfig": "setcon.config",
    "SetConError": "setcon.errors",
    "SetConLoss": "setcon.loss",
    "SetConOutput": "setcon.model",
    "SetEncoderConfig": "setcon.config",
    "SlotAttentionConfig": "setcon.config",
    "SlotWhitening": "setcon.whitening",
    "Slots": "setcon.slots.slot_attention",
    "Supervoxels": "setcon.supervoxels.supervoxels",
    "TimmConfig": "setcon.config",
    "TransitionConfig": "setcon.config",
    "alpha_labels": "setcon.measures.metrics",
    "ari": "setcon.measures.metrics",
    "attention_labels": "setcon.measures.metrics",
    "build_encoder": "setcon.encoders",
    "export_encoder": "setcon.export",
    "fg_ari": "setcon.measures.metrics",
    "fit_probe": "setcon.probe",
    "load": "online.analysis.opened",
    "load_model": "setcon.seed_checkpoint",
    "load_probe": "setcon.seed_checkpoint",
    "match": "setcon.matching",
    "mbo": "setcon.measures.metrics",
    "miou": "setcon.measures.metrics",
    "mse": "setcon.measures.metrics",
    "psnr": "setcon.measures.metrics",
}


_NAMES_AT_HOME = {"load": "load_run"}
"""A run is more than its model, so this one name leads out of the package."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes a second, which `--help` need not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'setcon' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), _NAMES_AT_HOME.get(name, name))


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet."""
    return __all__
