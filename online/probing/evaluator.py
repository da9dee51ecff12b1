"""The probe's verdict: what trained slots hold that an untrained encoder's do not.

    training part ──encode──▶ slots ──fit_probe──▶ probe ┐
    held-out part ──encode──▶ slots s_t, predicted p_t ──┴──▶ MSE, PSNR; ARI and mBO of alphas

Both encoders go through the same footage, the same probe, the same seed and the same budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from online.clips.catalog import FrameSource
from online.clips.clip import ClipConfig
from online.errors import Diverged
from online.probing.footage import Footage, gather
from online.scores.evaluation import (
    EncoderScores,
    Evaluation,
    MaskScores,
    Panels,
    Placed,
    ReconstructionScores,
    WithoutModel,
)
from online.training.batch import to_bytes, to_images
from setcon.measures import metrics
from setcon.measures.baselines import block_labels, colour_labels
from setcon.measures.places import object_places, place_r2
from setcon.model import SetCon
from setcon.probe import DecoderProbe, FittedProbe, ProbeConfig, Reconstruction, fit_probe

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done, 0..1."""

ENCODED_AT_ONCE = 64
DECODED_AT_ONCE = 16
MAX_THREADS = 1024
"""More are taken for a slip of the hand, as in training."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How often, and on how much footage, the probe looks."""

    every_steps: int = 5000
    """Optimizer steps between two evaluations during training; one more comes at the end."""
    train_clips: int = 250
    """Clips of the training part that the probe is fitted on."""
    held_out_clips: int = 60
    """Clips of the held-out part that it is scored on."""
    clip_length: int = 4
    """Frames of each clip that are used, beside the 2 * frame_stride that predict them."""
    panel_frames: int = 6
    """Frames drawn in the panels."""
    beside: bool = False
    """Probe in a process of its own while learning goes on, for which it wants a core and memory
    of its own. One that is due while the last is not finished is left out, and logged."""
    threads: int = 1
    """CPU threads of that process."""

    def __post_init__(self) -> None:
        for name in (
            *("every_steps", "train_clips", "held_out_clips", "clip_length", "panel_frames"),
            "threads",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.threads > MAX_THREADS:
            raise ValueError(f"threads is {self.threads}, it must lie in 1..{MAX_THREADS}")


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """An evaluation and its pictures."""

    evaluation: Evaluation
    panels: Panels


@dataclass(frozen=True, slots=True, eq=False)
class ProbeFootage:
    """What a probe is fitted on, and what it is scored on."""

    train: Footage
    held_out: Footage


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """Slots of the last l frames of each clip, one row per frame; n = m l."""

    current: Float[Tensor, "n k d"]
    predicted: Float[Tensor, "n k d"]
    copied: Float[Tensor, "n k d"]
    """Those of the frame one stride before, which `predicted` starts from."""
    attention: Float[Tensor, "n k p"]


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """What one encoder and its probe make of the held-out footage."""

    scores: EncoderScores
    probe: DecoderProbe
    encoded: _Encoded


@dataclass(frozen=True, slots=True, eq=False)
class _Baselines:
    """What does not change from one evaluation to the next, on the same footage."""

    specs: tuple[object, ...]
    without_model: WithoutModel | None
    untrained: _Reading


class Evaluator:
    """Looks at one source; the baselines are evaluated once per choice of footage."""

    def __init__(
        self,
        source: FrameSource,
        untrained: SetCon,
        config: EvaluationConfig,
        probe: ProbeConfig,
        *,
        frame_stride: int,
        device: torch.device,
    ) -> None:
        self.source = source
        self.untrained = untrained
        self.config = config
        self.probe_config = probe
        self.clip = ClipConfig(clip_length=config.clip_length, frame_stride=frame_stride)
        self.device = device
        self._baselines: _Baselines | None = None

    def fit(self, model: SetCon, *, progress: Progress | None = None) -> DecoderProbe:
        """The probe that `evaluate` would score: fitted on the training part.

        Raises FootageError: too little footage to train a probe on.
        """
        report = progress or (lambda what, share: None)
        report("fetching footage", 0.0)
        train = gather(
            self.source, "train", clips=self.config.train_clips, config=self.clip, masks=False
        )
        with _evaluating(model):
            seen = self._encode(model, train)
            return self._fit(seen, train, lambda share: report("probing", share)).probe

    def footage(self) -> ProbeFootage:
        """Clips of both parts, as the source holds them now.

        Raises FootageError: too little footage to train or score a probe on.
        """
        return ProbeFootage(
            train=gather(self.source, "train", clips=self.config.train_clips, config=self.clip),
            held_out=gather(
                self.source, "held_out", clips=self.config.held_out_clips, config=self.clip
            ),
        )

    def scores(
        self, model: SetCon, footage: ProbeFootage, progress: Callable[[float], None]
    ) -> EncoderScores:
        """As `evaluate`, of one encoder and without pictures."""
        mean_frame_mse = _mean_frame_mse(footage.train, self._targets(footage.held_out))
        reading = self._read(model, footage, progress)
        return _with_shares(reading.scores, mean_frame_mse)

    @torch.no_grad()
    def evaluate(self, model: SetCon, *, step: int, progress: Progress | None = None) -> Findings:
        """Fit and score the probe on `model` as it stands; its weights are not touched.

        Raises FootageError: too little footage to train or score a probe on.
        """
        report = progress or (lambda what, share: None)
        started = time.monotonic()
        report("fetching footage", 0.0)
        footage = self.footage()
        train, held_out = footage.train, footage.held_out
        trained = self._read(model, footage, lambda share: report("probing", 0.02 + 0.49 * share))
        baselines = self._read_baselines(
            footage, lambda share: report("probing untrained", 0.51 + 0.49 * share)
        )
        untrained = baselines.untrained
        mean_frame_mse = _mean_frame_mse(train, self._targets(held_out))
        copied = self._reconstruction(trained.probe, trained.encoded.copied, held_out)
        evaluation = Evaluation(
            step=step,
            trained=_with_shares(trained.scores, mean_frame_mse),
            untrained=_with_shares(untrained.scores, mean_frame_mse),
            mean_frame_mse=mean_frame_mse,
            mean_frame_psnr=metrics.psnr(mean_frame_mse),
            frames_train=self._targets(train).shape[0],
            frames_held_out=self._targets(held_out).shape[0],
            frames_without_two_objects=self._without_two_objects(held_out),
            copied=_with_share(copied, mean_frame_mse),
            without_model=baselines.without_model,
            seconds=time.monotonic() - started,
        )
        panels = self._panels(held_out, trained, untrained)
        report("probed", 1.0)
        return Findings(evaluation, panels)

    def _read_baselines(
        self, footage: ProbeFootage, progress: Callable[[float], None]
    ) -> _Baselines:
        specs = (footage.train.specs, footage.held_out.specs)
        if self._baselines is None or self._baselines.specs != specs:
            self._baselines = _Baselines(
                specs=specs,
                without_model=self._without_model(footage),
                untrained=self._read(self.untrained, footage, progress),
            )
        return self._baselines

    @torch.no_grad()
    def _read(
        self, model: SetCon, footage: ProbeFootage, progress: Callable[[float], None]
    ) -> _Reading:
        held_out = footage.held_out
        with _evaluating(model):
            seen = self._encode(model, footage.train)
            fitted = self._fit(seen, footage.train, lambda share: progress(0.8 * share))
            encoded = self._encode(model, held_out)
            summaries = model.summarise(encoded.current)
        progress(0.9)
        truth = self._target_masks(held_out)
        size = (held_out.images.shape[2], held_out.images.shape[3])
        scores = EncoderScores(
            current=self._reconstruction(fitted.probe, encoded.current, held_out),
            predicted=self._reconstruction(fitted.probe, encoded.predicted, held_out),
            attention=None
            if truth is None
            else _mask_scores(
                truth,
                metrics.attention_labels(
                    encoded.attention, grid=model.encoder.grid_size(*size), image_size=size
                ).cpu(),
                clips=len(held_out),
            ),
            probe_train_mse=fitted.train_mse,
            slot_entropy=metrics.slot_usage_entropy(encoded.attention),
            effective_rank=metrics.effective_rank(summaries),
            places=self._places(footage, seen.current, encoded.current),
        )
        progress(1.0)
        return _Reading(scores, fitted.probe, encoded)

    @torch.no_grad()
    def _fit(
        self, seen: _Encoded, train: Footage, progress: Callable[[float], None]
    ) -> FittedProbe:
        return fit_probe(
            torch.cat([seen.current, seen.predicted]),
            torch.from_numpy(np.concatenate([self._targets(train)] * 2)),
            self.probe_config,
            progress=lambda done, total: progress(done / total),
        )

    def _encode(self, model: SetCon, footage: Footage) -> _Encoded:
        parts: list[tuple[Tensor, ...]] = []
        t, s = footage.images.shape[1], self.clip.frame_stride
        clips_at_once = max(1, ENCODED_AT_ONCE // t)
        for start in range(0, len(footage), clips_at_once):
            frames = to_images(footage.images[start : start + clips_at_once]).to(self.device)
            output = model(frames, frame_stride=s)
            kinds = (
                *(output.slots[:, 2 * s :], output.predicted, output.slots[:, s:-s]),
                output.attention[:, 2 * s :],
            )
            parts.append(tuple(kind.flatten(0, 1) for kind in kinds))
        current, predicted, copied, attention = (torch.cat(p) for p in zip(*parts, strict=True))
        if not (current.isfinite().all() and predicted.isfinite().all()):
            raise Diverged(
                "slots are no numbers any more: the model has diverged; lower "
                "optimizer.learning_rate, in a new run"
            )
        return _Encoded(current, predicted, copied, attention)

    def _reconstruction(
        self, probe: DecoderProbe, slots: Float[Tensor, "n k d"], footage: Footage
    ) -> ReconstructionScores:
        """Score what the probe draws; `mse_share` is filled in by the caller."""
        targets, truth = self._targets(footage), self._target_masks(footage)
        squared_error, labels = 0.0, []
        for start, drawn in _decoded(probe, slots):
            images = to_images(targets[start : start + len(drawn.image)]).to(drawn.image.device)
            squared_error += float(metrics.mse(drawn.image, images).sum())
            labels.append(metrics.alpha_labels(drawn.alphas).cpu())
        mse = squared_error / len(targets)
        return ReconstructionScores(
            mse=mse,
            mse_share=None,
            psnr=metrics.psnr(mse),
            alphas=None
            if truth is None
            else _mask_scores(truth, torch.cat(labels), clips=len(footage)),
        )

    def _targets(self, footage: Footage) -> UInt8[np.ndarray, "n h w 3"]:
        """The frames that have a prediction, one row per frame."""
        images = footage.images[:, self.clip.overlap :]
        return images.reshape(-1, *images.shape[2:])

    def _target_masks(self, footage: Footage) -> UInt8[Tensor, "n h w"] | None:
        if footage.masks is None:
            return None
        masks = footage.masks[:, self.clip.overlap :]
        return torch.from_numpy(masks.reshape(-1, *masks.shape[2:]))

    def _places(
        self,
        footage: ProbeFootage,
        seen: Float[Tensor, "n k d"],
        held_out: Float[Tensor, "m k d"],
    ) -> list[Placed] | None:
        masks, new_masks = map(self._target_masks, (footage.train, footage.held_out))
        if masks is None or new_masks is None:
            return None
        things = int(torch.maximum(masks.max(), new_masks.max()))
        if not things:
            return []
        places, new_places = (object_places(m, num_objects=things) for m in (masks, new_masks))
        r2 = place_r2((seen.cpu(), places), (held_out.cpu(), new_places))
        best, slot = r2.max(dim=0)  # of a thing that is seen too rarely, NaN
        return [
            Placed(label=label + 1, slot=int(slot[label]) + 1, r2=float(best[label]))
            for label in range(things)
            if best[label].isfinite()
        ]

    def _without_model(self, footage: ProbeFootage) -> WithoutModel | None:
        truth = self._target_masks(footage.held_out)
        if truth is None:
            return None
        images = torch.from_numpy(self._targets(footage.held_out))
        seen = torch.from_numpy(self._targets(footage.train))
        segments = self.untrained.config.slot_attention.num_slots
        count, height, width = truth.shape
        blocks = block_labels(count, num_segments=segments, height=height, width=width)
        colours = colour_labels(images, seen=seen, num_segments=segments)
        by_blocks, by_colours = (
            _mask_scores(truth, labels, clips=len(footage.held_out)) for labels in (blocks, colours)
        )
        if by_blocks is None or by_colours is None:  # no frame shows two objects
            return None
        return WithoutModel(blocks=by_blocks, colours=by_colours)

    def _without_two_objects(self, footage: Footage) -> int:
        masks = self._target_masks(footage)
        return 0 if masks is None else int((metrics.visible_objects(masks) < 2).sum())

    @torch.no_grad()
    def _panels(self, footage: Footage, trained: _Reading, untrained: _Reading) -> Panels:
        """A few frames, spread evenly over the held-out footage."""
        targets, masks = self._targets(footage), self._target_masks(footage)
        wanted = min(self.config.panel_frames, len(targets))
        rows = np.unique(np.linspace(0, len(targets) - 1, wanted).round().astype(int))
        pick = torch.from_numpy(rows).to(self.device)
        drawn = trained.probe(trained.encoded.current[pick])
        predicted = trained.probe(trained.encoded.predicted[pick])
        other = untrained.probe(untrained.encoded.current[pick])
        attention = trained.encoded.attention[pick]
        grid = self.untrained.encoder.grid_size(*footage.images.shape[2:4])
        return Panels(
            names=[self._name(footage, int(row)) for row in rows],
            frames=targets[rows],
            truth=None if masks is None else masks[rows].numpy(),
            reconstruction=to_bytes(drawn.image),
            predicted=to_bytes(predicted.image),
            untrained=to_bytes(other.image),
            slots=to_bytes(drawn.slot_images),
            alphas=drawn.alphas.squeeze(2).float().cpu().numpy(),
            attention=attention.unflatten(-1, grid).float().cpu().numpy(),
        )

    def _name(self, footage: Footage, row: int) -> str:
        clip, frame = divmod(row, self.clip.clip_length)
        seconds = footage.pts_ns[clip, self.clip.overlap + frame] / 1e9
        return f"{footage.specs[clip].recording} {seconds:.1f} s"


@contextmanager
def _evaluating(model: SetCon) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _decoded(
    probe: DecoderProbe, slots: Float[Tensor, "n k d"]
) -> Iterator[tuple[int, Reconstruction]]:
    for start in range(0, len(slots), DECODED_AT_ONCE):
        yield start, probe(slots[start : start + DECODED_AT_ONCE])


def _mask_scores(
    truth: UInt8[Tensor, "n h w"], labels: Int[Tensor, "n h w"], *, clips: int
) -> MaskScores | None:
    """Mean over frames, and over clips for the video level, that show two objects or more."""
    shown = metrics.visible_objects(truth) >= 2
    if not shown.any():
        return None
    videos, video_labels = truth.unflatten(0, (clips, -1)), labels.unflatten(0, (clips, -1))
    shown_videos = metrics.visible_objects(videos) >= 2
    truth, labels = truth[shown], labels[shown]
    return MaskScores(
        fg_ari=float(metrics.fg_ari(truth, labels).mean()),
        fg_ari_video=float(metrics.fg_ari(videos[shown_videos], video_labels[shown_videos]).mean()),
        ari=float(metrics.ari(truth, labels).mean()),
        mbo=float(metrics.mbo(truth, labels).mean()),
        miou=float(metrics.miou(truth, labels).mean()),
    )


def _mean_frame_mse(train: Footage, targets: UInt8[np.ndarray, "n h w 3"]) -> float:
    """What the best constant image, the mean of the training footage, scores on `targets`."""
    mean = train.images.mean(axis=(0, 1), dtype=np.float64)
    squared_error = [float(((image - mean) ** 2).mean()) for image in targets]
    return sum(squared_error) / len(squared_error) / 255**2


def _with_shares(scores: EncoderScores, mean_frame_mse: float) -> EncoderScores:
    return replace(
        scores,
        current=_with_share(scores.current, mean_frame_mse),
        predicted=_with_share(scores.predicted, mean_frame_mse),
    )


def _with_share(part: ReconstructionScores, mean_frame_mse: float) -> ReconstructionScores:
    return replace(part, mse_share=part.mse / mean_frame_mse if mean_frame_mse else None)
