"""SetCon: frames to slots, slots to the slots of the next frame, and a set of slots to one vector.

    frames ──encoder──▶ features ──slot attention──▶ slots ──transition──▶ predicted slots
                                                       └──────set encoder──────┘──▶ loss

A frame is encoded once, however many triplets it is part of: `forward` takes runs of frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from setcon.config import GEOMETRY, LossConfig, SetConConfig
from setcon.deep_set import DeepSet
from setcon.encoders import build_encoder
from setcon.encoders.timm_encoder import TimmEncoder
from setcon.frozen import keep_frozen_in_evaluation
from setcon.layers import Total, alone, at_least_float32
from setcon.loss import SetConLoss, slot_shares
from setcon.matching import Matching, match
from setcon.rows import Rows, loss_of_rows
from setcon.slots.foreground import foreground_loss
from setcon.slots.object_slots import ObjectSlots, as_bytes
from setcon.slots.slot_attention import SlotAttention, Slots
from setcon.supervoxels.supervoxels import Supervoxels
from setcon.transition import Transition


@dataclass(frozen=True, slots=True, eq=False)
class SetConOutput:
    """What the model makes of runs of frames, time in order."""

    slots: Float[Tensor, "b t k d"]
    predicted: Float[Tensor, "b t_predicted k d"]
    """For the last t - 2 * frame_stride frames, each from the two frames before it."""
    attention: Float[Tensor, "b t k p"]
    """As in `Slots.attention`."""
    foreground: Float[Tensor, "b t p"] | None = None
    """As in `Slots.foreground`."""
    segments: Int64[Tensor, "b t h w"] | None = None
    """As in `Slots.segments`."""


class SetCon(nn.Module):
    """The model; images are RGB in [0, 1] and of any size."""

    def __init__(self, config: SetConConfig) -> None:
        super().__init__()
        self.config = config
        slot_size = config.slot_attention.slot_size
        self.encoder = build_encoder(config.encoder, center_inputs=config.center_inputs)
        find_slots = ObjectSlots if config.finds_objects else SlotAttention
        self.slot_attention = find_slots(
            config.slot_attention, feature_size=self.encoder.feature_size
        )
        self.transition = Transition(
            config.transition,
            slot_size=slot_size,
            geometry=GEOMETRY if config.finds_objects else 0,
            measured=config.slot_attention.measured if config.finds_objects else 0,
        )
        self.set_encoder = DeepSet(config.set_encoder, slot_size=slot_size)

    def train(self, mode: bool = True) -> "SetCon":
        """As in any module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        keep_frozen_in_evaluation(self)
        return self

    def encode(
        self,
        images: Float[Tensor, "*n 3 h w"] | UInt8[Tensor, "*n 3 h w"],
        *,
        run_length: int = 1,
        pieces: Sequence[Supervoxels] | None = None,
        outlines: bool = True,
        maps: Sequence[Float[Tensor, "*n _c _r _s"]] | None = None,
    ) -> Slots:
        """The slots of each image; of a single one, n is 1. Bytes are taken as shares of 255.

        Slots that start at objects keep their object through a run: the images are runs of
        `run_length` frames, one after another. `pieces` are the supervoxels of each run, if they
        are known already; `outlines` asks for the segment of every pixel. `maps` are what a frozen
        encoder made of the images, if that was kept.
        """
        images = as_images(images)
        if isinstance(self.slot_attention, SlotAttention):
            return self.slot_attention(self._features(images, maps))
        if pieces is None:
            pieces = [
                Supervoxels.of(run, distance=None) for run in as_bytes(images).split(run_length)
            ]
        with torch.no_grad():  # it learns from the loss of the foreground
            features = self._features(images, maps)
        return self.slot_attention(features, images, pieces, outlines=outlines)

    def _features(
        self,
        images: Float[Tensor, "n 3 h w"],
        maps: Sequence[Float[Tensor, "n _c _r _s"]] | None,
    ) -> Float[Tensor, "n p c"]:
        """Features of images, of which a frozen encoder may have made `maps` before."""
        if maps is None:
            return self.encoder(images)
        assert isinstance(self.encoder, TimmEncoder)
        return self.encoder.read(maps, height=images.shape[-2], width=images.shape[-1])

    def foreground_loss(
        self,
        images: Float[Tensor, "n 3 h w"],
        targets: Float[Tensor, "n p"],
        *,
        maps: Sequence[Float[Tensor, "n _c _r _s"]] | None = None,
        total: Total = alone,
    ) -> Float[Tensor, ""]:
        """What slots that start at objects learn to find them with; see `foreground_targets`.

        With `total`, this is the part of these images in the loss of more. `maps` are those of
        `encode`.

        Raises TypeError: this model has learned starts.
        """
        if not isinstance(self.slot_attention, ObjectSlots):
            raise TypeError("slots with learned starts have no foreground")
        logits = self.slot_attention.foreground(self._features(images, maps)).squeeze(-1)
        return foreground_loss(logits, targets, total=total)

    def predict(
        self, slots: Float[Tensor, "b t k d"], *, frame_stride: int = 1
    ) -> Float[Tensor, "b t-2*{frame_stride} k d"]:
        """Predicted slots of each frame that has two frames before it, `frame_stride` apart."""
        return self.transition(slots, frame_stride=frame_stride)

    def summarise(self, slots: Float[Tensor, "*n k d"]) -> Float[Tensor, "*n e"]:
        """One vector for each set of slots."""
        return self.set_encoder(slots)

    def forward(
        self,
        frames: Float[Tensor, "b t 3 h w"],
        *,
        frame_stride: int = 1,
        pieces: Sequence[Supervoxels] | None = None,
        outlines: bool = True,
    ) -> SetConOutput:
        """Encode every frame once and predict every frame that has two before it.

        `pieces` and `outlines` are those of `encode`, of each run of frames.

        Raises ValueError if t < 2 * frame_stride + 1.
        """
        b, t = frames.shape[:2]
        encoded = self.encode(frames.flatten(0, 1), run_length=t, pieces=pieces, outlines=outlines)
        return self.of_slots(encoded, num_runs=b, frame_stride=frame_stride)

    def of_slots(self, encoded: Slots, *, num_runs: int, frame_stride: int) -> SetConOutput:
        """What the model makes of the slots of as many runs; see `forward`."""
        by_run = (num_runs, len(encoded.slots) // num_runs)
        slots = at_least_float32(encoded.slots).unflatten(0, by_run)
        predicted = self.predict(slots, frame_stride=frame_stride)
        if encoded.foreground is not None:  # a slot that holds no object stays as it is
            later = slice(frame_stride, by_run[1] - frame_stride)
            held = encoded.attention.unflatten(0, by_run)[:, later].sum(dim=-1) > 0
            predicted = torch.where(held[..., None], predicted, slots[:, later])
        foreground, segments = (
            None if each is None else each.unflatten(0, by_run)
            for each in (encoded.foreground, encoded.segments)
        )
        return SetConOutput(
            slots=slots,
            predicted=predicted,
            attention=encoded.attention.unflatten(0, by_run),
            foreground=foreground,
            segments=segments,
        )

    def loss(
        self, output: SetConOutput, config: LossConfig, *, matching: Matching | None = None
    ) -> SetConLoss:
        """Every prediction of every run against the states of all time steps of all runs.

        `matching` is what `match` says of runs that were filled up to one length, for the same
        horizon, on the device of the output; without it all predictions count. With a horizon
        above 1, the contrast's loss and chance are means over the steps ahead, as far as any run
        reaches; all else of it is of one step.
        """
        if matching is None:
            shape = output.predicted.shape[:2]
            valid = torch.ones(shape, dtype=torch.bool, device=output.slots.device)
            matching = match(valid, num_frames=output.slots.shape[1], horizon=config.horizon)
        return loss_of_rows(self.rows(output, config, matching), config)

    def rows(self, output: SetConOutput, config: LossConfig, matching: Matching) -> Rows:
        """What the loss is taken of; that of `loss` is `loss_of_rows` of it.

        Where slots say where their object is and what it looks like, the contrast does not teach
        what is predicted of that: it would rather have places that are distinct than right.
        """
        by_slot = config.unit == "slot"
        states = output.slots.flatten(0, 1)[matching.states]
        states = states if by_slot else self.summarise(states)
        ahead: list[Tensor] = []
        steps = self._ahead(output, len(matching.ahead))
        for predicted, counted in zip(steps, matching.ahead, strict=True):
            predicted = self._compared(predicted).flatten(0, 1)[counted.predictions]
            ahead.append(predicted if by_slot else self.summarise(predicted))
        return Rows(
            states=states,
            shares=slot_shares(output.attention.flatten(0, 1)[matching.states]),
            ahead=tuple(ahead),
            targets=tuple(counted.targets for counted in matching.ahead),
        )

    def _compared(self, predicted: Float[Tensor, "b t k d"]) -> Float[Tensor, "b t k d"]:
        """Predicted slots as the contrast teaches them: not what is measured."""
        if not self.config.finds_objects:
            return predicted
        measured = self.config.slot_attention.measured
        return torch.cat([predicted[..., :measured].detach(), predicted[..., measured:]], dim=-1)

    def _ahead(
        self, output: SetConOutput, horizon: int
    ) -> Iterator[Float[Tensor, "b _t_predicted k d"]]:
        """Predictions one step ahead and more, each of the last frames of the runs.

        The runs are long enough for all of them, as `match` sees to it.
        """
        stride = (output.slots.shape[1] - output.predicted.shape[1]) // 2
        earlier, later = output.slots[:, stride:-stride], output.predicted
        yield later
        for _ in range(horizon - 1):
            earlier, later = (
                later[:, :-stride],
                self.transition.step(earlier[:, :-stride], later[:, :-stride]),
            )
            yield later


def as_images(
    images: Float[Tensor, "*n 3 h w"] | UInt8[Tensor, "*n 3 h w"],
) -> Float[Tensor, "m 3 h w"]:
    """Floats in [0, 1], with an axis for images also where there is only one.

    Raises ValueError where there are not three channels before rows and columns.
    """
    if images.ndim not in (3, 4) or images.shape[-3] != 3:
        raise ValueError(
            f"images must be (3, h, w) or (n, 3, h, w), got {tuple(images.shape)}; of "
            "(n, h, w, 3), take .permute(0, 3, 1, 2)"
        )
    batch = images if images.ndim == 4 else images[None]
    return batch / 255 if batch.dtype == torch.uint8 else batch
