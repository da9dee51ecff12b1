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

from setcon.deep_set import SetEncoderConfig
from setcon.encoders.convolutional import EncoderConfig
from setcon.errors import SeedCheckpointError, SetConError
from setcon.loss import ContrastiveLoss, LossConfig, SetConLoss
from setcon.model import SetCon, SetConConfig, SetConOutput
from setcon.slot_attention import SlotAttentionConfig, Slots
from setcon.transition import TransitionConfig

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
