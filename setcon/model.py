"""SetCon: frames to slots, slots to the slots of the next frame, and a set of slots to one vector.

    frames ──encoder──▶ features ──slot attention──▶ slots ──transition──▶ predicted slots
                                                       └──────set encoder──────┘──▶ loss

A frame is encoded once, however many triplets it is part of: `forward` takes runs of frames.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from setcon.deep_set import DeepSet, SetEncoderConfig
from setcon.encoder import Encoder, EncoderConfig
from setcon.loss import (
    ContrastiveLoss,
    LossConfig,
    SetConLoss,
    contrastive_loss,
    slot_exclusivity,
    slotwise_contrastive_loss,
)
from setcon.slot_attention import SlotAttention, SlotAttentionConfig, Slots
from setcon.transition import Transition, TransitionConfig


@dataclass(frozen=True, kw_only=True)
class SetConConfig:
    """Every size of the model; the defaults are the paper's for Bouncing Balls."""

    center_inputs: bool = True
    """Give the encoder images in [-1, 1] (paper) instead of [0, 1] (port)."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Images to features."""
    slot_attention: SlotAttentionConfig = field(default_factory=SlotAttentionConfig)
    """Features to slots."""
    transition: TransitionConfig = field(default_factory=TransitionConfig)
    """Slots of two frames to those of the next."""
    set_encoder: SetEncoderConfig = field(default_factory=SetEncoderConfig)
    """Slots to one vector."""


@dataclass(frozen=True, slots=True, eq=False)
class SetConOutput:
    """What the model makes of runs of frames, time in order."""

    slots: Float[Tensor, "b t k d"]
    predicted: Float[Tensor, "b t_predicted k d"]
    """For the last t - 2 * frame_stride frames, each from the two frames before it."""
    attention: Float[Tensor, "b t k p"]
    """As in `Slots.attention`."""


class SetCon(nn.Module):
    """The model; images are RGB in [0, 1] and of any size."""

    def __init__(self, config: SetConConfig) -> None:
        super().__init__()
        self.config = config
        slot_size = config.slot_attention.slot_size
        self.encoder = Encoder(config.encoder)
        self.slot_attention = SlotAttention(
            config.slot_attention, feature_size=config.encoder.width
        )
        self.transition = Transition(config.transition, slot_size=slot_size)
        self.set_encoder = DeepSet(config.set_encoder, slot_size=slot_size)

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> Slots:
        """The slots of each image."""
        if self.config.center_inputs:
            images = images * 2 - 1
        return self.slot_attention(self.encoder(images))

    def predict(
        self, slots: Float[Tensor, "b t k d"], *, frame_stride: int = 1
    ) -> Float[Tensor, "b t-2*{frame_stride} k d"]:
        """Predicted slots of each frame that has two frames before it, `frame_stride` apart."""
        return self.transition(slots, frame_stride=frame_stride)

    def summarise(self, slots: Float[Tensor, "*n k d"]) -> Float[Tensor, "*n e"]:
        """One vector for each set of slots."""
        return self.set_encoder(slots)

    def forward(self, frames: Float[Tensor, "b t 3 h w"], *, frame_stride: int = 1) -> SetConOutput:
        """Encode every frame once and predict every frame that has two before it.

        Raises ValueError if t < 2 * frame_stride + 1.
        """
        encoded = self.encode(frames.flatten(0, 1))
        slots = encoded.slots.unflatten(0, frames.shape[:2])
        return SetConOutput(
            slots=slots,
            predicted=self.predict(slots, frame_stride=frame_stride),
            attention=encoded.attention.unflatten(0, frames.shape[:2]),
        )

    def loss(
        self,
        output: SetConOutput,
        config: LossConfig,
        *,
        valid: Bool[Tensor, "b t_predicted"] | None = None,
    ) -> SetConLoss:
        """Every prediction of every run against the states of all time steps of all runs.

        `valid` says which predictions count, where runs were filled up to one length; without it
        all do. With a horizon above 1, the contrast's loss and chance are means over the steps
        ahead, as far as any run reaches; all else of it is of one step.
        """
        if valid is None:
            shape = output.predicted.shape[:2]
            valid = torch.ones(shape, dtype=torch.bool, device=output.slots.device)
        by_slot = config.unit == "slot"
        contrast = slotwise_contrastive_loss if by_slot else contrastive_loss
        counted, own = match(valid, num_frames=output.slots.shape[1])
        states = output.slots[counted]
        states = states if by_slot else self.summarise(states)
        steps: list[ContrastiveLoss] = []
        for predicted in self._ahead(output, config.horizon):
            last = slice(-predicted.shape[1], None)
            reached = valid[:, last]
            if steps and not reached.any():
                break
            predicted = predicted[reached]
            predicted = predicted if by_slot else self.summarise(predicted)
            steps.append(contrast(predicted, states, own[:, last][reached], config))
        contrasted = replace(
            steps[0],
            loss=torch.stack([step.loss for step in steps]).mean(),
            chance=statistics.mean(step.chance for step in steps),
        )
        exclusivity = slot_exclusivity(output.attention[counted])
        shared = config.exclusivity * (1 - exclusivity) if config.exclusivity else 0.0
        return SetConLoss(contrasted.loss + shared, contrasted, exclusivity)

    def _ahead(
        self, output: SetConOutput, horizon: int
    ) -> Iterator[Float[Tensor, "b _t_predicted k d"]]:
        """Predictions one step ahead and more, each of the last frames of the runs."""
        stride = (output.slots.shape[1] - output.predicted.shape[1]) // 2
        earlier, later = output.slots[:, stride:-stride], output.predicted
        yield later
        for _ in range(horizon - 1):
            if later.shape[1] <= stride:
                return
            earlier, later = (
                later[:, :-stride],
                self.transition.step(earlier[:, :-stride], later[:, :-stride]),
            )
            yield later


def match(
    valid: Bool[Tensor, "b t_predicted"], *, num_frames: int
) -> tuple[Bool[Tensor, "b t"], Int[Tensor, "b t_predicted"]]:
    """Which frames count as states, and for each valid prediction the index of its own state.

    The predictions are those of the last frames of runs of `num_frames`. A run counts up to its
    last valid prediction; what it is filled up with after that does not. Indices of predictions
    that are not valid mean nothing.
    """
    b, triplets = valid.shape
    span = num_frames - triplets
    ends = torch.arange(1, triplets + 1, device=valid.device) + span
    length = (valid * ends).amax(dim=1, keepdim=True)
    states = torch.arange(num_frames, device=valid.device).expand(b, -1) < length
    index = states.flatten().cumsum(0).view(b, -1) - 1
    return states, index[:, span:]
