"""Every setting of the model, its loss and its probe; importing them does not import torch.

    SetConConfig ─┬─ EncoderConfig ── TimmConfig    ProbeConfig ── DecoderConfig
                  ├─ SlotAttentionConfig            LossConfig
                  ├─ TransitionConfig
                  └─ SetEncoderConfig

The string below a field explains it; `setcon presets NAME` prints these as comments.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from setcon.checks import check_above, check_at_least, check_below, check_choice, check_within

Activation = Literal["relu", "elu"]
Normalisation = Literal["none", "batch", "group"]
EncoderKind = Literal["paper", "small", "normal", "large", "dilated", "timm"]
Starts = Literal["learned", "objects"]
TransitionKind = Literal["paper", "interacting"]
DecoderKind = Literal["bilinear", "pixel", "object", "broadcast", "small", "normal", "large"]
Similarity = Literal["cosine", "dot"]
Unit = Literal["set", "slot"]

GROUPS = 8  # of GroupNorm


GEOMETRY = 4
"""Numbers that a slot begins with where it starts at an object: its centre (y, x) and its spread
(y, x), in 0..1 as positions are; the spread is a standard deviation. Zeros for a slot that no
object is left for."""
COLOUR_MOMENTS = (0, 1, 3, 6)
"""None, and up to the order 0, 1 and 2."""


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """Which pretrained model of the library timm an encoder begins with."""

    name: str = ""
    """Its name there, such as `vit_small_patch14_dinov2.lvd142m` or `resnet18`."""
    weights: str = ""
    """File of its weights, .safetensors or .pth; where it is empty, timm downloads its own."""
    tuned: bool = False
    """Learn its weights too. Otherwise they stay, what it sees of a frame is kept for as long as
    the replay holds the frame, and checkpoints are small."""
    enlarge: float = 1.0
    """Frames are enlarged so many times for it: small frames are few patches."""

    def __post_init__(self) -> None:
        check_within(0.25, 16, timm_enlarge=self.enlarge)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Which convolutions an encoder starts with, and how wide it is."""

    kind: EncoderKind = "paper"
    """`paper` keeps the resolution; `small`, `normal` and `large` reduce it to an eighth; `dilated`
    reduces it to a quarter and sees far around each position; `timm` is a pretrained model, brought
    to a quarter."""
    width: int = 32
    """Size of a feature vector; for `paper` also the filter size of its convolutions."""
    patch: int = 1
    """Side, in pixels, of what one position of `paper` sees: 1 in the paper."""
    normalisation: Normalisation = "none"
    """Normalisation after the first convolution: none (paper), BatchNorm (port), or GroupNorm of 8
    groups."""
    timm: TimmConfig = field(default_factory=TimmConfig)
    """The pretrained model of `timm`."""

    def __post_init__(self) -> None:
        check_choice("encoder kind", self.kind, get_args(EncoderKind))
        if (self.kind == "timm") != bool(self.timm.name):
            raise ValueError(
                "an encoder of kind timm, and no other, needs timm.name, got "
                f"{self.timm.name!r} for {self.kind}"
            )
        check_choice("encoder normalisation", self.normalisation, get_args(Normalisation))
        check_at_least(1, encoder_width=self.width, encoder_patch=self.patch)
        if self.patch != 1 and self.kind != "paper":
            raise ValueError(
                f"only a paper encoder has a patch, got {self.patch} for {self.kind}; set "
                "model.encoder.patch=1, or use a preset without one, such as things"
            )
        narrow = self.kind in ("paper", "dilated") and self.normalisation == "group"
        if narrow and self.width % GROUPS:
            raise ValueError(f"GroupNorm needs a width in multiples of {GROUPS}, got {self.width}")


@dataclass(frozen=True, kw_only=True)
class SlotAttentionConfig:
    """How many slots there are, and how they are found."""

    starts: Starts = "learned"
    """`learned`: each slot starts from its own vector, and slots compete for positions (paper).
    `objects`: slot 0 is the background, and each of the others is one of the objects found in a
    run of frames by what moves and what belongs together; needs the encoder `dilated` or `timm`."""
    num_slots: int = 4
    """Slots per image; with `objects` the most there can be, the background's included."""
    slot_size: int = 16
    """Size of a slot, independent of the encoder's width."""
    hidden_size: int = 128
    """Hidden units of the MLP that follows the GRU."""
    iterations: int = 1
    """Rounds of competition of learned starts: 1 in the paper, 3 in the port."""
    colour_moments: int = 0
    """With `objects`: number of colour moments stored in each slot, of three numbers each: 1 is the
    mean colour, 3 add its slope along each axis, 6 add the second order."""
    foreground_threshold: float = 0.4
    """With `objects`: from which mean probability on a piece of the picture is of an object."""

    def __post_init__(self) -> None:
        check_choice("starts", self.starts, get_args(Starts))
        check_choice("colour_moments", self.colour_moments, COLOUR_MOMENTS)
        if self.colour_moments and self.starts != "objects":
            raise ValueError(
                f"only slots that start at objects have colour_moments, got {self.colour_moments} "
                f"for {self.starts}"
            )
        if self.starts == "objects":
            # at least two numbers are learned; and the background takes a slot
            check_at_least(self.measured + 2, slot_size=self.slot_size)
            check_at_least(2, num_slots=self.num_slots)
        check_within(0, 1, foreground_threshold=self.foreground_threshold)
        check_at_least(
            1,
            num_slots=self.num_slots,
            slot_size=self.slot_size,
            hidden_size=self.hidden_size,
            iterations=self.iterations,
        )

    @property
    def measured(self) -> int:
        """With `objects`: numbers at the beginning of a slot that are measured, and not learned."""
        return GEOMETRY + 3 * self.colour_moments


@dataclass(frozen=True, kw_only=True)
class TransitionConfig:
    """How the slots of the next frame are predicted."""

    kind: TransitionKind = "paper"
    """`paper` predicts each slot on its own; `interacting` lets slots attend to each other first,
    for objects that bounce off each other."""
    hidden_size: int = 64
    """Size of h for `interacting`; `paper` ignores it, its h is as large as a slot."""

    def __post_init__(self) -> None:
        check_choice("transition kind", self.kind, get_args(TransitionKind))
        check_at_least(1, hidden_size=self.hidden_size)


@dataclass(frozen=True, kw_only=True)
class SetEncoderConfig:
    """How large the set encoder is."""

    hidden_size: int = 128
    """Hidden units of both MLPs, and the size of the sum between them."""
    output_size: int = 128
    """Size of the vector for the whole set."""
    depth: int = 2
    """Linear layers in each of the two MLPs: 2 in the paper, 3 in the port."""
    activation: Activation = "relu"
    """Activation between those layers: ReLU in the paper, ELU in the port."""

    def __post_init__(self) -> None:
        check_choice("set encoder activation", self.activation, get_args(Activation))
        check_at_least(
            1, hidden_size=self.hidden_size, output_size=self.output_size, depth=self.depth
        )


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

    def __post_init__(self) -> None:
        if self.finds_objects and self.encoder.kind not in ("dilated", "timm"):
            raise ValueError(
                "slots that start at objects need encoder.kind = "
                f'"dilated" or "timm", got {self.encoder.kind!r}'
            )

    @property
    def keeps_maps(self) -> bool:
        """Whether the encoder begins with a frozen model, whose maps can be kept."""
        return self.encoder.kind == "timm" and not self.encoder.timm.tuned

    @property
    def finds_objects(self) -> bool:
        """Whether slots start at objects that are found in the frames."""
        return self.slot_attention.starts == "objects"


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What the loss compares, and how sharply.

    The defaults learned in 10 of 10 trials. The paper's own form is `similarity="dot",
    temperature=0.5, standardise=False`; it often stalls at ln(number of states), because
    predictions can move away from all states by a constant and so silence the
    prediction-prediction terms.
    """

    unit: Unit = "set"
    """Compare whole sets, by the set encoder, or (the baseline) each slot with its own index."""
    similarity: Similarity = "cosine"
    """Inner product, of unit vectors if `cosine`."""
    temperature: float = 0.1
    """Divides every similarity."""
    standardise: bool = True
    """First give every dimension zero mean and unit variance over the batch, states and
    predictions together."""
    exclusivity: float = 0.0
    """Weight of 1 - exclusivity, which is added to the contrast; 0 in the paper. Without effect on
    slots that start at objects, which share nothing."""
    horizon: int = 1
    """Predict up to this many steps ahead, each step from the one predicted before: 1 in the
    paper."""
    foreground: float = 1.0
    """Weight of the foreground's loss, for slots that start at objects."""
    prediction: float = 0.0
    """Weight of the distance between predicted slots and those of the frame, for slots that start
    at objects: the contrast alone leaves where a predicted slot says it is open."""
    foreground_trust: float = 0.25
    """How much the model's own logits count, in addition to the evidence of motion, once it has
    learned for a while: objects that rest are found by it."""

    def __post_init__(self) -> None:
        check_choice("loss unit", self.unit, get_args(Unit))
        check_choice("loss similarity", self.similarity, get_args(Similarity))
        check_above(0, temperature=self.temperature)
        check_at_least(0, exclusivity=self.exclusivity, foreground=self.foreground)
        check_at_least(0, foreground_trust=self.foreground_trust, prediction=self.prediction)
        check_below(math.inf, exclusivity=self.exclusivity, foreground=self.foreground)
        check_below(math.inf, prediction=self.prediction, foreground_trust=self.foreground_trust)
        check_at_least(1, horizon=self.horizon)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Which decoder, and how large."""

    kind: DecoderKind = "bilinear"
    """A product or an MLP per pixel, a product in each object's own coordinates (for slots that
    start at objects), the paper's broadcast decoder, or one of the port's sizes."""
    hidden_size: int = 256
    """Hidden units of `bilinear`, `object` and `pixel`; filter size of `broadcast` (the paper: 32
    or 16)."""
    depth: int = 2
    """Hidden layers of `bilinear` and `object` (of their slots), `pixel` and `broadcast`."""
    rank: int = 32
    """Maps over the image that `bilinear` and `object` mix for every slot."""
    frequencies: int = 6
    """Octaves of the Fourier features of a position, for `bilinear`, `object` and `pixel`."""
    normalisation: Normalisation = "none"
    """Normalisation before the last convolution of `small`, `normal` and `large`; the port uses
    `batch`."""

    def __post_init__(self) -> None:
        check_choice("decoder kind", self.kind, get_args(DecoderKind))
        check_choice("decoder normalisation", self.normalisation, get_args(Normalisation))
        check_at_least(1, hidden_size=self.hidden_size, depth=self.depth, rank=self.rank)
        check_at_least(0, frequencies=self.frequencies)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Which decoder, and the fixed budget that it is fitted with."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Slots to images."""
    whiten: bool = True
    """First scale every direction of every slot to unit variance, except those that are noise."""
    steps: int = 2000
    """Steps of Adam."""
    frames_per_step: int = 32
    """Frames drawn for each step."""
    pixels_per_frame: int = 1024
    """Pixels drawn from each of these frames, if it has more, for `bilinear`, `object` and `pixel`;
    the other decoders draw whole frames."""
    learning_rate: float = 6e-3
    """Learning rate after the warm-up; from there it decays to zero along a cosine."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises linearly."""
    seed: int = 0
    """Seed of the initial weights and of every draw."""

    def __post_init__(self) -> None:
        check_at_least(
            1,
            steps=self.steps,
            frames_per_step=self.frames_per_step,
            pixels_per_frame=self.pixels_per_frame,
        )
        check_at_least(0, warmup_steps=self.warmup_steps, learning_rate=self.learning_rate)
        check_at_least(0, seed=self.seed)
        if self.decoder.kind == "object" and self.whiten:
            raise ValueError("an object decoder reads where a slot is: whiten must be false")
