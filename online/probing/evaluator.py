"""The probe's verdict: what trained slots hold that an untrained encoder's do not.

    training part ──encode──▶ slots ──fit_probe──▶ probe ┐
    held-out part ──encode──▶ slots s_t, predicted p_t ──┴──▶ MSE, PSNR; ARI and mBO of alphas

Both encoders go through the same footage, the same probe, the same seed and the same budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from online.clips.catalog import FrameSource
from online.clips.clip import ClipConfig
from online.probing.config import EvaluationConfig
from online.probing.encoded import CutFootage, ProbeFootage
from online.probing.footage import Part, gather
from online.probing.kept import NO_PROBES, KeptProbe, KeptProbes, load_probes, save_probes
from online.probing.panels import draw_panels
from online.probing.reading import Reading, fitted_probe, read, read_segments
from online.probing.scoring import (
    frames_without_annotation,
    frames_without_two_objects,
    mean_frame_mse,
    reconstruction_scores,
    scores_without_model,
    with_share,
    with_shares,
)
from online.scores.evaluation import (
    EncoderScores,
    Evaluation,
    MaskScores,
    Panels,
    WithoutModel,
)
from online.training.models import in_float32
from setcon.config import ProbeConfig
from setcon.measures import metrics
from setcon.model import SetCon
from setcon.probe import DecoderProbe

OnProgress = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done, 0..1."""


@runtime_checkable
class ProbeSettings(Protocol):
    """The part of a run's configuration that decides what an evaluation finds."""

    @property
    def evaluation(self) -> EvaluationConfig:
        """How much footage is looked at."""
        ...

    @property
    def probe(self) -> ProbeConfig:
        """What is fitted to it."""
        ...

    @property
    def frame_stride(self) -> int:
        """Distance in frames between the three frames of a triplet."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """An evaluation and its pictures."""

    evaluation: Evaluation
    panels: Panels


@dataclass(frozen=True, slots=True, eq=False)
class _Baselines:
    """What does not change from one evaluation to the next, on the same footage."""

    specs: tuple[object, ...]
    without_model: WithoutModel | None
    untrained: Reading


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
        self.untrained = in_float32(untrained)
        self.config = config
        self.probe_config = probe
        self.clip = ClipConfig(clip_length=config.clip_length, frame_stride=frame_stride)
        self.device = device
        self._baselines: _Baselines | None = None

    @classmethod
    def of(
        cls, config: ProbeSettings, source: FrameSource, untrained: SetCon, *, device: torch.device
    ) -> Evaluator:
        """The evaluator that a run's configuration asks for."""
        return cls(
            source,
            untrained,
            config.evaluation,
            config.probe,
            frame_stride=config.frame_stride,
            device=device,
        )

    def fit(
        self,
        model: SetCon,
        *,
        progress: OnProgress | None = None,
        kept: KeptProbes = NO_PROBES,
    ) -> DecoderProbe:
        """The probe that `evaluate` would score: fitted on the training part, or kept of that.

        Raises FootageError: too little footage to train a probe on.
        """
        report = progress or (lambda what, share: None)
        report("fetching footage", 0.0)
        return fitted_probe(
            model,
            self._gather("train", self.config.train_clips, masks=False),
            self.probe_config,
            device=self.device,
            progress=lambda share: report("probing", share),
            kept=kept.trained,
        )

    def footage(self) -> ProbeFootage:
        """Clips of both parts, as the source holds them now.

        Raises FootageError: too little footage to train or score a probe on.
        """
        return ProbeFootage(
            train=self._gather("train", self.config.train_clips), held_out=self.held_out()
        )

    def held_out(self) -> CutFootage:
        """Clips of the held-out part; FootageError: too little of it."""
        return self._gather("held_out", self.config.held_out_clips)

    def scores(
        self, model: SetCon, footage: ProbeFootage, progress: Callable[[float], None]
    ) -> EncoderScores:
        """As `evaluate`, of one encoder and without pictures."""
        reading = self._read(model, footage, progress)
        return with_shares(reading.scores, mean_frame_mse(footage))

    def segments(
        self, model: SetCon, held_out: CutFootage, progress: Callable[[float], None]
    ) -> MaskScores | None:
        """The scores of the segments alone, for which no probe is fitted."""
        return read_segments(model, held_out, device=self.device, progress=progress)

    def evaluate_in(
        self, folder: Path, model: SetCon, *, step: int, progress: OnProgress | None = None
    ) -> Findings:
        """As `evaluate`, with the fitted probes kept in `folder`, which is made for them.

        Those that an evaluation which was interrupted has left there are not fitted again.
        """
        return self.evaluate(
            model,
            step=step,
            progress=progress,
            kept=load_probes(folder, self.probe_config, device=self.device),
            keep=partial(save_probes, folder),
        )

    @torch.no_grad()
    def evaluate(
        self,
        model: SetCon,
        *,
        step: int,
        progress: OnProgress | None = None,
        kept: KeptProbes = NO_PROBES,
        keep: Callable[[KeptProbes], None] = lambda fitted: None,
    ) -> Findings:
        """Fit and score the probe on `model` as it stands; its weights are not touched.

        Probes of this model that were `kept` are scored instead, if the footage is the same. Those
        that are fitted, which takes most of the time, are passed to `keep` one by one, and so is
        the untrained one of an earlier step.

        Raises FootageError: too little footage to train or score a probe on.
        """
        report = progress or (lambda what, share: None)
        started = time.monotonic()
        report("fetching footage", 0.0)
        model, footage = in_float32(model), self.footage()
        held_out = footage.held_out
        trained = self._read(
            model,
            footage,
            lambda share: report("probing", 0.02 + 0.49 * share),
            kept.trained,
            lambda fitted: keep(KeptProbes(trained=fitted)),
        )
        baselines = self._read_baselines(
            footage,
            lambda share: report("probing untrained", 0.51 + 0.49 * share),
            kept.untrained,
            lambda fitted: keep(KeptProbes(untrained=fitted)),
        )
        mean_mse = mean_frame_mse(footage)
        copied = reconstruction_scores(trained.probe, trained.encoded.copied, held_out)
        evaluation = Evaluation(
            step=step,
            trained=with_shares(trained.scores, mean_mse),
            untrained=with_shares(baselines.untrained.scores, mean_mse),
            mean_frame_mse=mean_mse,
            mean_frame_psnr=metrics.psnr(mean_mse),
            frames_train=len(footage.train.targets),
            frames_held_out=len(held_out.targets),
            frames_without_two_objects=frames_without_two_objects(held_out),
            frames_without_annotation=frames_without_annotation(held_out),
            copied=with_share(copied, mean_mse),
            without_model=baselines.without_model,
            has_segments=model.config.finds_objects,
            seconds=time.monotonic() - started,
        )
        grid = model.encoder.grid_size(*held_out.image_size)
        most = self.config.panel_frames
        panels = draw_panels(held_out, trained, baselines.untrained, grid=grid, most=most)
        report("probed", 1.0)
        return Findings(evaluation, panels)

    def _read_baselines(
        self,
        footage: ProbeFootage,
        progress: Callable[[float], None],
        kept: KeptProbe | None,
        keep: Callable[[KeptProbe], None],
    ) -> _Baselines:
        specs = (footage.train.footage.specs, footage.held_out.footage.specs)
        if self._baselines is None or self._baselines.specs != specs:
            self._baselines = _Baselines(
                specs=specs,
                without_model=scores_without_model(
                    footage, num_segments=self._num_segments(footage.held_out)
                ),
                untrained=self._read(self.untrained, footage, progress, kept, keep),
            )
        else:
            keep(self._baselines.untrained.kept)
        return self._baselines

    def _num_segments(self, held_out: CutFootage) -> int:
        """How many segments what needs no model may make: as many as there are slots.

        Slots that start at objects find out how many there are; the others are told, on average.
        """
        config = self.untrained.config
        masks = held_out.masks
        if not config.finds_objects or masks is None or not metrics.is_annotated(masks).any():
            return config.slot_attention.num_slots
        visible = metrics.visible_objects(masks[metrics.is_annotated(masks)])
        return round(float(visible.float().mean())) + 1

    def _read(
        self,
        model: SetCon,
        footage: ProbeFootage,
        progress: Callable[[float], None],
        kept: KeptProbe | None = None,
        keep: Callable[[KeptProbe], None] = lambda fitted: None,
    ) -> Reading:
        return read(
            model,
            footage,
            self.probe_config,
            device=self.device,
            progress=progress,
            kept=kept,
            keep=keep,
        )

    def _gather(self, part: Part, clips: int, *, masks: bool = True) -> CutFootage:
        footage = gather(self.source, part, clips=clips, config=self.clip, masks=masks)
        return CutFootage.of(footage, self.clip)
