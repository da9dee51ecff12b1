"""Scores of one encoder and its probe on held-out footage, and of what needs no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from online.probing.encoded import CutFootage, EncodedFootage, ProbeFootage
from online.scores.evaluation import (
    EncoderScores,
    MaskScores,
    Placed,
    ReconstructionScores,
    WithoutModel,
)
from online.training.batch import to_images
from setcon.measures import metrics
from setcon.measures.baselines import (
    block_labels,
    colour_labels,
    frame_k_means_labels,
    frame_ward_labels,
)
from setcon.measures.places import object_places, place_r2
from setcon.model import SetCon
from setcon.probe import DecoderProbe, FittedProbe, Reconstruction

DECODED_AT_ONCE = 16
"""Frames."""


def encoder_scores(
    model: SetCon,
    fitted: FittedProbe,
    footage: ProbeFootage,
    *,
    train: EncodedFootage,
    held_out: EncodedFootage,
) -> EncoderScores:
    """All scores of one encoder; every `mse_share` is left to `with_shares`."""
    cut = footage.held_out
    return EncoderScores(
        current=reconstruction_scores(fitted.probe, held_out.current, cut),
        predicted=reconstruction_scores(fitted.probe, held_out.predicted, cut),
        attention=segment_scores(model, held_out, cut),
        probe_train_mse=fitted.train_mse,
        slot_entropy=metrics.slot_usage_entropy(held_out.attention),
        effective_rank=metrics.effective_rank(model.summarise(held_out.current)),
        # the slots that start at objects are not the same object's in every clip
        places=None
        if model.config.finds_objects
        else _places(footage, train.current, held_out.current),
    )


def reconstruction_scores(
    probe: DecoderProbe, slots: Float[Tensor, "n k d"], cut: CutFootage
) -> ReconstructionScores:
    """Score what the probe draws of the targets; `mse_share` is left to `with_share`."""
    squared_error, labels = 0.0, []
    for start, drawn in _decoded(probe, slots):
        images = to_images(cut.targets[start : start + len(drawn.image)]).to(drawn.image.device)
        squared_error += float(metrics.mse(drawn.image, images).sum())
        labels.append(metrics.alpha_labels(drawn.alphas).cpu())
    mse = squared_error / len(cut.targets)
    return ReconstructionScores(
        mse=mse,
        mse_share=None,
        psnr=metrics.psnr(mse),
        alphas=None
        if cut.masks is None
        else _mask_scores(cut.masks, torch.cat(labels), clips=cut.clips),
    )


def scores_without_model(footage: ProbeFootage, *, num_segments: int) -> WithoutModel | None:
    """What each simple segmentation scores; None where no frame shows two objects."""
    cut, truth = footage.held_out, footage.held_out.masks
    if truth is None:
        return None
    images, seen = (torch.from_numpy(c.targets) for c in (cut, footage.train))
    count, height, width = truth.shape
    blocks = block_labels(count, num_segments=num_segments, height=height, width=width)
    colours = colour_labels(images, seen=seen, num_segments=num_segments)
    by_blocks, by_colours = (
        _mask_scores(truth, labels, clips=cut.clips) for labels in (blocks, colours)
    )
    if by_blocks is None or by_colours is None:
        return None
    by_k_means, by_ward = (
        _mask_scores(truth, find(images, num_segments=num_segments), clips=None)
        for find in (frame_k_means_labels, frame_ward_labels)
    )
    return WithoutModel(
        blocks=by_blocks, colours=by_colours, frame_k_means=by_k_means, frame_ward=by_ward
    )


def shows_objects(cut: CutFootage) -> bool:
    """Whether there are frames that segments are scored on."""
    return cut.masks is not None and bool((metrics.visible_objects(cut.masks) >= 2).any())


def frames_without_two_objects(cut: CutFootage) -> int:
    """Annotated targets that masks are not scored on."""
    if cut.masks is None:
        return 0
    few = metrics.visible_objects(cut.masks) < 2
    return int((few & metrics.is_annotated(cut.masks)).sum())


def frames_without_annotation(cut: CutFootage) -> int:
    """Targets of which no mask is known, where there are masks of others."""
    return 0 if cut.masks is None else int((~metrics.is_annotated(cut.masks)).sum())


def mean_frame_mse(footage: ProbeFootage) -> float:
    """What the best constant image, the mean of the training footage, scores when held out."""
    mean = footage.train.footage.images.mean(axis=(0, 1), dtype=np.float64)
    squared_error = [float(((image - mean) ** 2).mean()) for image in footage.held_out.targets]
    return sum(squared_error) / len(squared_error) / 255**2


def with_shares(scores: EncoderScores, mean_frame_mse: float) -> EncoderScores:
    """`scores` with every error also as a share of the mean frame's."""
    return replace(
        scores,
        current=with_share(scores.current, mean_frame_mse),
        predicted=with_share(scores.predicted, mean_frame_mse),
    )


def with_share(part: ReconstructionScores, mean_frame_mse: float) -> ReconstructionScores:
    """`part` with its error as a share of the mean frame's, if that has any."""
    return replace(part, mse_share=part.mse / mean_frame_mse if mean_frame_mse else None)


def segment_scores(model: SetCon, encoded: EncodedFootage, cut: CutFootage) -> MaskScores | None:
    """Score the segments that the slots attend to, for which no probe is needed."""
    if cut.masks is None:
        return None
    labels = encoded.segments
    if labels is None:
        grid = model.encoder.grid_size(*cut.image_size)
        labels = metrics.attention_labels(encoded.attention, grid=grid, image_size=cut.image_size)
    return _mask_scores(cut.masks, labels.cpu(), clips=cut.clips)


def _places(
    footage: ProbeFootage, seen: Float[Tensor, "n k d"], held_out: Float[Tensor, "m k d"]
) -> list[Placed] | None:
    masks, new_masks = footage.train.masks, footage.held_out.masks
    if masks is None or new_masks is None:
        return None
    count = max(int(m.where(m != metrics.UNKNOWN, 0).max()) for m in (masks, new_masks))
    if not count:
        return []
    places, new_places = (object_places(m, num_objects=count) for m in (masks, new_masks))
    r2 = place_r2((seen.cpu(), places), (held_out.cpu(), new_places))
    best, slot = r2.max(dim=0)  # NaN for an object that is seen too rarely
    return [
        Placed(label=label + 1, slot=int(slot[label]) + 1, r2=float(best[label]))
        for label in range(count)
        if best[label].isfinite()
    ]


def _decoded(
    probe: DecoderProbe, slots: Float[Tensor, "n k d"]
) -> Iterator[tuple[int, Reconstruction]]:
    for start in range(0, len(slots), DECODED_AT_ONCE):
        yield start, probe(slots[start : start + DECODED_AT_ONCE])


def _mask_scores(
    truth: UInt8[Tensor, "n h w"], labels: Int[Tensor, "n h w"], *, clips: int | None
) -> MaskScores | None:
    """Mean over frames, and over clips for the video level, that show two objects or more.

    `clips` is None where a label means something else in each frame: there is no video level then.
    """
    shown = metrics.visible_objects(truth) >= 2
    if not shown.any():
        return None
    fg_ari_video = None if clips is None else _video_fg_ari(truth, labels, clips=clips)
    truth, labels = truth[shown], labels[shown]
    return MaskScores(
        fg_ari=float(metrics.fg_ari(truth, labels).mean()),
        fg_ari_video=fg_ari_video,
        ari=float(metrics.ari(truth, labels).mean()),
        mbo=float(metrics.mbo(truth, labels).mean()),
        miou=float(metrics.miou(truth, labels).mean()),
    )


def _video_fg_ari(
    truth: UInt8[Tensor, "n h w"], labels: Int[Tensor, "n h w"], *, clips: int
) -> float:
    videos, video_labels = truth.unflatten(0, (clips, -1)), labels.unflatten(0, (clips, -1))
    shown = metrics.visible_objects(videos) >= 2
    return float(metrics.fg_ari(videos[shown], video_labels[shown]).mean())
