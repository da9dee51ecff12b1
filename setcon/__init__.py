"""SetCon: slot attention learned by contrasting sets of slots, after Löwe et al. 2020.

Axis letters, in every shape of this package:

    b   runs of frames in a batch          n   images, where time does not matter
    t   time, earliest first               c   channels, or size of a feature
    k   slots                              h   rows of an image
    d   size of a slot                     w   columns of an image
    e   size of the vector for a set       p   positions of an image, row by row

The paper is arXiv 2011.10287. Images are RGB floats in [0, 1]. Nothing here knows of video, stores
or queues.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from setcon.config import (
        EncoderConfig,
        LossConfig,
        SetConConfig,
        SetEncoderConfig,
        SlotAttentionConfig,
        TransitionConfig,
    )
    from setcon.errors import SeedCheckpointError, SetConError
    from setcon.loss import ContrastiveLoss, SetConLoss
    from setcon.model import SetCon, SetConOutput
    from setcon.slot_attention import Slots

__all__ = [
    "ContrastiveLoss",
    "EncoderConfig",
    "LossConfig",
    "SeedCheckpointError",
    "SetCon",
    "SetConConfig",
    "SetConError",
    "SetConLoss",
    "SetConOutput",
    "SetEncoderConfig",
    "SlotAttentionConfig",
    "Slots",
    "TransitionConfig",
]

_HOMES = {
    "ContrastiveLoss": "setcon.loss",
    "EncoderConfig": "setcon.config",
    "LossConfig": "setcon.config",
    "SeedCheckpointError": "setcon.errors",
    "SetCon": "setcon.model",
    "SetConConfig": "setcon.config",
    "SetConError": "setcon.errors",
    "SetConLoss": "setcon.loss",
    "SetConOutput": "setcon.model",
    "SetEncoderConfig": "setcon.config",
    "SlotAttentionConfig": "setcon.config",
    "Slots": "setcon.slot_attention",
    "TransitionConfig": "setcon.config",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes a second, which `--help` need not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'setcon' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
