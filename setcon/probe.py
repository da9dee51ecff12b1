"""What slots know of the image, measured by a decoder that is trained on them while they are fixed.

    image = Σ_k alpha_k · rgb_k,      alpha = softmax over slots

No gradient reaches the slots. A probe is fitted with its own seed and leaves global random state
alone, so the same slots give the same probe whatever else the run has drawn.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from setcon.config import DecoderConfig, ProbeConfig
from setcon.cuda_graph import CudaGraphed
from setcon.decoders.decoder import BroadcastDecoder, build_decoder
from setcon.decoders.object_decoder import ObjectDecoder
from setcon.layers import at_least_float32
from setcon.position import position_grid
from setcon.whitening import SlotWhitening


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """An image decoded from slots, and its parts."""

    image: Float[Tensor, "n 3 h w"]
    slot_images: Float[Tensor, "n k 3 h w"]
    """What each slot would draw everywhere; not multiplied by alpha."""
    alphas: Float[Tensor, "n k 1 h w"]
    """Shares of each pixel: over k they sum to one."""


@dataclass(frozen=True, slots=True, eq=False)
class FittedProbe:
    """A probe after its budget is spent."""

    probe: "DecoderProbe"
    train_mse: float
    """Mean over the last tenth of the steps, on the frames and pixels they drew."""


class DecoderProbe(nn.Module):
    """Slots to images of `image_size` (height, width), which may be changed at any time."""

    def __init__(
        self,
        config: DecoderConfig,
        *,
        slot_size: int,
        image_size: tuple[int, int],
        whitening: SlotWhitening | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.slot_size = slot_size
        self.image_size = image_size
        self.whitening = whitening or nn.Identity()
        self.decoder = build_decoder(config, slot_size)

    def forward(self, slots: Float[Tensor, "n k d"]) -> Reconstruction:
        """Decode whole images."""
        slot_images, alphas = _parts(self.decoder(self.whitening(slots), *self.image_size))
        return Reconstruction((slot_images * alphas).sum(dim=1), slot_images, alphas)

    def at(
        self, slots: Float[Tensor, "n k d"], positions: Float[Tensor, "q 2"]
    ) -> Float[Tensor, "n 3 q"]:
        """Decode some positions of each image; TypeError if the decoder makes whole images only."""
        if isinstance(self.decoder, BroadcastDecoder):
            raise TypeError(f"a {self.config.kind} decoder makes whole images only")
        slot_colours, alphas = _parts(self.decoder.at(self.whitening(slots), positions))
        return (slot_colours * alphas).sum(dim=1)


def fit_probe(
    slots: Float[Tensor, "n k d"],
    images: UInt8[Tensor, "m h w 3"] | Float[Tensor, "m 3 h w"],
    config: ProbeConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> FittedProbe:
    """Fit a probe to images (uint8, or floats in [0, 1]) and their slots, which are detached.

    An image may have slots of several kinds: first those of all images, then those of all again.

    The probe comes back in evaluation mode and is in it all along, so a BatchNorm is the same fixed
    layer when it is trained and when it is scored. `progress` gets steps done and steps in all.
    """
    pixels = images if images.dtype == torch.uint8 else images.permute(0, 2, 3, 1)
    if len(slots) % len(pixels):
        raise ValueError(f"the slots of {len(slots)} images are given, and {len(pixels)} images")
    with torch.inference_mode(mode=False), torch.enable_grad():
        losses = torch.empty(config.steps, device=slots.device)
        probe = _new_probe(slots, (pixels.shape[1], pixels.shape[2]), config)
        optimizer = torch.optim.Adam(
            probe.parameters(), lr=config.learning_rate, fused=slots.is_cuda
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, config))
        generator = torch.Generator().manual_seed(config.seed)
        # which objects there are decides the shapes within an object decoder
        graphs = not isinstance(probe.decoder, ObjectDecoder)
        learn = CudaGraphed(probe, partial(_learn, probe), enabled=graphs)
        for step in range(config.steps):
            drawn = _draw(probe, slots.detach(), pixels, config, generator)
            losses[step] = learn(*drawn)
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, config.steps)
    return FittedProbe(probe, train_mse=losses[-max(1, config.steps // 10) :].mean().item())


def _new_probe(
    slots: Float[Tensor, "n k d"], image_size: tuple[int, int], config: ProbeConfig
) -> DecoderProbe:
    num_slots, slot_size = slots.shape[1:]
    whitening = SlotWhitening(num_slots, slot_size) if config.whiten else None
    if whitening is not None:
        whitening.fit(slots)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed would reach the GPUs'
        probe = DecoderProbe(
            config.decoder, slot_size=slot_size, image_size=image_size, whitening=whitening
        )
    probe = probe.to(slots.device).eval()
    if isinstance(probe.decoder, ObjectDecoder):
        probe.decoder.fit(slots)
    return probe


def _learn(
    probe: DecoderProbe, slots: Tensor, truth: Tensor, *positions: Tensor
) -> Float[Tensor, ""]:
    """Set the gradients of the mean squared error on a draw, and return it."""
    image = probe.at(slots, *positions) if positions else probe(slots).image
    loss = F.mse_loss(image, truth)
    loss.backward()
    return loss.detach()


def _draw(
    probe: DecoderProbe,
    slots: Float[Tensor, "n k d"],
    pixels: UInt8[Tensor, "m h w 3"] | Float[Tensor, "m h w 3"],
    config: ProbeConfig,
    generator: torch.Generator,
) -> tuple[Tensor, ...]:
    """Slots of some frames and what they are to draw; of some of their pixels, where those are, if
    the decoder can."""
    _, height, width, _ = pixels.shape
    frames = torch.randint(len(slots), (config.frames_per_step,), generator=generator)
    drawn_slots = slots[frames.to(slots.device)]
    drawn_pixels = pixels[(frames % len(pixels)).to(pixels.device)]
    if isinstance(probe.decoder, BroadcastDecoder):
        truth = _in_unit_range(drawn_pixels, slots.device)
        return drawn_slots, truth.permute(0, 3, 1, 2)
    index = torch.arange(height * width)
    if len(index) > config.pixels_per_frame:
        index = torch.randint(len(index), (config.pixels_per_frame,), generator=generator)
    positions = position_grid(height, width)[index].to(slots.device)
    truth = _in_unit_range(drawn_pixels.flatten(1, 2)[:, index.to(pixels.device)], slots.device)
    return drawn_slots, truth.transpose(1, 2), positions


def _in_unit_range(
    pixels: UInt8[Tensor, "*n"] | Float[Tensor, "*n"], device: torch.device
) -> Float[Tensor, "*n"]:
    moved = pixels.to(device)
    return moved / 255 if moved.dtype == torch.uint8 else moved


def _parts(
    channels: Float[Tensor, "n k 4 *s"],
) -> tuple[Float[Tensor, "n k 3 *s"], Float[Tensor, "n k 1 *s"]]:
    """What each slot draws, and its share of each pixel."""
    channels = at_least_float32(channels)
    return channels[:, :, :3], channels[:, :, 3:].softmax(dim=1)  # slots compete for each pixel


def _pace(step: int, config: ProbeConfig) -> float:
    """The share of the learning rate at a step: a linear rise, times half a cosine down to zero."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / config.steps))
