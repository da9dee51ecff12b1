"""Slots that start at objects: each reads the segment of one, and slot 0 that of the background.

    foreground = sigmoid(linear(features))                      one number for each position
    segments   = pieces of the run, where they are foreground, put together into objects
    update_k   = mean of the values of segment k
    slot_k     = GRU(update_k, start);  slot_k += MLP(LayerNorm(slot_k))
                 its first numbers: where it is, then what it looks like

Where it is are the centre and spread of the segment. What it looks like are moments of its colours,

    mean over the segment of colour(position) · h(u),    u = (position - centre) / spread

of Hermite polynomials h of u = (v, w): 1; v, w; (v² - 1)/√2, v·w, (w² - 1)/√2. They are the mean
colour, and how it changes across the object. Both are measured: in the run that docs/objects.md
shows, what was learned of a slot kept less of looks than a network that had not learned.

There is one start for the background, one for objects, and one for slots that no object is left
for, which stay at it. Through a run of frames a slot keeps its object. The encoder learns from the
foreground's loss alone: the contrast of sets does not need objects, and would undo them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (everyone's name for it)
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from setcon.config import GEOMETRY, SlotAttentionConfig
from setcon.layers import Total, alone, at_least_float32, mlp
from setcon.position import own_coordinates, position_grid
from setcon.slots.slot_attention import Slots
from setcon.supervoxels.objects import group, segments
from setcon.supervoxels.supervoxels import Supervoxels

_BACKGROUND, _OBJECT, _NONE = range(3)
_REACH = 3.0  # spreads from the centre: clips the tail of an elongated object


class ObjectSlots(nn.Module):
    """Features of runs of frames to slots."""

    def __init__(self, config: SlotAttentionConfig, *, feature_size: int) -> None:
        super().__init__()
        size = config.slot_size
        self.config = config
        self.foreground = nn.Linear(feature_size, 1)
        self.starts = nn.Parameter(torch.randn(3, size))
        self.norm_inputs = nn.LayerNorm(feature_size)
        self.to_values = nn.Linear(feature_size + 3, size)
        self.norm_mlp = nn.LayerNorm(size)
        self.gru = nn.GRUCell(size, size)
        self.mlp = mlp([size, config.hidden_size, size])

    def forward(
        self,
        features: Float[Tensor, "n p c"],
        images: Float[Tensor, "n 3 h w"],
        pieces: Sequence[Supervoxels],
        *,
        outlines: bool,
    ) -> Slots:
        """The slots of frames, of one run after another; `pieces` are those of each run.

        With `outlines` the segment of every pixel is found too.
        """
        logits = at_least_float32(self.foreground(features)).squeeze(-1)
        found = [
            group(
                piece,
                piece.mean(likely),
                threshold=self.config.foreground_threshold,
                most=self.config.num_slots - 1,
            )
            for piece, likely in zip(pieces, self._by_run(logits, pieces), strict=True)
        ]
        grids = [f[piece.labels] for f, piece in zip(found, pieces, strict=True)]
        shares = F.one_hot(torch.cat(grids).flatten(1), self.config.num_slots)
        shares = shares.transpose(1, 2).to(logits)
        slots = self._read(features, images, shares, grid=grids[0].shape[1:])
        return Slots(
            slots=slots,
            attention=shares,
            foreground=logits,
            segments=_outlines(images, pieces, found) if outlines else None,
        )

    def _by_run(
        self, logits: Float[Tensor, "n p"], pieces: Sequence[Supervoxels]
    ) -> list[Float[Tensor, "t r c"]]:
        likely = logits.detach().sigmoid().cpu()
        parts = likely.split([len(piece.labels) for piece in pieces])
        return [p.view(piece.labels.shape) for p, piece in zip(parts, pieces, strict=True)]

    def _read(
        self,
        features: Float[Tensor, "n p c"],
        images: Float[Tensor, "n 3 h w"],
        shares: Float[Tensor, "n k p"],
        *,
        grid: torch.Size,
    ) -> Float[Tensor, "n k d"]:
        colours = F.adaptive_avg_pool2d(images, (grid[0], grid[1])).flatten(2).transpose(1, 2)
        with torch.autocast(features.device.type, enabled=False):
            inputs = torch.cat(
                [self.norm_inputs(at_least_float32(features)), at_least_float32(colours)], dim=-1
            )
            weights = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1)
            updates = weights @ self.to_values(inputs)
            exists = shares.sum(dim=-1) > 0
            starts = self._starts(exists)
            updated = self.gru(updates.flatten(0, 1), starts.flatten(0, 1)).view_as(updates)
            updated = updated + self.mlp(self.norm_mlp(updated))
            updated = torch.where(exists[..., None], updated, self.starts[_NONE])
            positions = position_grid(*grid, like=weights)
            where = _geometry(weights, positions)
            looks = _colour_moments(
                weights,
                where,
                positions,
                2 * at_least_float32(colours) - 1,
                self.config.colour_moments,
            )
            measured = torch.cat([where, looks], dim=-1)
            return torch.cat([measured, updated[..., measured.shape[-1] :]], dim=-1)

    def _starts(self, exists: Bool[Tensor, "n k"]) -> Float[Tensor, "n k d"]:
        kinds = torch.full(exists.shape[1:], _OBJECT, device=exists.device)
        kinds[0] = _BACKGROUND
        return self.starts[kinds].expand(len(exists), -1, -1)


def prediction_loss(
    slots: Float[Tensor, "b t k d"],
    predicted: Float[Tensor, "b t_predicted k d"],
    held: Bool[Tensor, "b t k"],
    valid: Bool[Tensor, "b t_predicted"],
    *,
    total: Total = alone,
) -> Float[Tensor, ""]:
    """How far predicted slots are from those of the frame, mean over slots that are `held` in all
    three frames of a triplet.

    With `total`, this is the part of these slots in the mean over those of more.

    The distance is smooth L1 (Girshick 2015), of where a slot is in units of a tenth of the
    picture. No gradient reaches the slots that are to be predicted.
    """
    count = predicted.shape[1]
    stride = (slots.shape[1] - count) // 2
    earlier, later, own = (held[:, first : first + count] for first in (0, stride, 2 * stride))
    counted = earlier & later & own & valid[..., None]
    error = predicted - slots[:, 2 * stride :].detach()
    error = torch.cat([10 * error[..., :GEOMETRY], error[..., GEOMETRY:]], dim=-1)
    distance = F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=0.1)
    return (distance.mean(dim=-1) * counted).sum() / total(counted.sum()).clamp_min(1)


def _geometry(
    weights: Float[Tensor, "n k p"], positions: Float[Tensor, "p 2"]
) -> Float[Tensor, "n k 4"]:
    """Centre and spread of each slot's positions."""
    centre = weights @ positions
    variance = weights @ positions.square() - centre.square()
    return torch.cat([centre, variance.clamp_min(0).sqrt()], dim=-1)


def _colour_moments(
    weights: Float[Tensor, "n k p"],
    where: Float[Tensor, "n k 4"],
    positions: Float[Tensor, "p 2"],
    colours: Float[Tensor, "n p 3"],
    count: int,
) -> Float[Tensor, "n k 3*{count}"]:
    """The first `count` moments of each slot's colours: first all three channels of one."""
    if not count:
        return weights.new_zeros(*weights.shape[:2], 0)
    centre, spread = where[:, :, None].chunk(2, dim=-1)
    v, w = own_coordinates(positions, centre, spread, reach=_REACH).unbind(dim=-1)
    half = math.sqrt(0.5)
    polynomials = (None, v, w, half * (v.square() - 1), v * w, half * (w.square() - 1))
    moments = [
        (weights if polynomial is None else weights * polynomial) @ colours
        for polynomial in polynomials[:count]
    ]
    return torch.cat(moments, dim=-1)


def _outlines(
    images: Float[Tensor, "n 3 h w"],
    pieces: Sequence[Supervoxels],
    found: Sequence[Int64[Tensor, " _m"]],
) -> Int64[Tensor, "n h w"]:
    runs = as_bytes(images).split([len(piece.labels) for piece in pieces])
    labels = [each.labels for each in pieces]
    return torch.cat([segments(*each) for each in zip(runs, labels, found, strict=True)])


def as_bytes(images: Float[Tensor, "*n 3 h w"]) -> UInt8[Tensor, "*n h w 3"]:
    """Images as supervoxels take them: rounded and clipped to [0, 1], channels last, on the CPU."""
    scaled = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return scaled.movedim(-3, -1).cpu()
