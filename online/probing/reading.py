"""One encoder under the probe: fitted on the slots of one part, scored on those of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from online.probing.encoded import CutFootage, EncodedFootage, ProbeFootage, encode
from online.probing.kept import KeptProbe, model_key, probe_key
from online.probing.scoring import encoder_scores, segment_scores
from online.scores.evaluation import EncoderScores, MaskScores
from setcon.config import ProbeConfig
from setcon.model import SetCon
from setcon.probe import DecoderProbe, FittedProbe, fit_probe


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one encoder and its probe make of the held-out footage."""

    scores: EncoderScores
    kept: KeptProbe
    encoded: EncodedFootage

    @property
    def probe(self) -> DecoderProbe:
        """The probe that was scored."""
        return self.kept.fitted.probe


@torch.no_grad()
def read(
    model: SetCon,
    footage: ProbeFootage,
    config: ProbeConfig,
    *,
    device: torch.device,
    progress: Callable[[float], None],
    kept: KeptProbe | None = None,
    keep: Callable[[KeptProbe], None] = lambda fitted: None,
) -> Reading:
    """Fit and score a probe on `model` as it stands; its weights are not touched.

    One that was `kept` is scored instead, if it was fitted on the same model and footage. One that
    is fitted is passed to `keep` before it is scored.
    """
    key = probe_key(footage.train, config)
    with _evaluating(model):
        train = encode(model, footage.train, device=device, progress=_part(progress, 0.0, 0.15))
        if kept is None or not kept.suits(key, model):
            fitted = fit(train, footage.train, config, _part(progress, 0.15, 0.75))
            kept = KeptProbe(key, fitted, model_key(model))
            keep(kept)
        held_out = encode(
            model,
            footage.held_out,
            device=device,
            outlines=True,
            progress=_part(progress, 0.75, 0.9),
        )
        scores = encoder_scores(model, kept.fitted, footage, train=train, held_out=held_out)
    progress(1.0)
    return Reading(scores, kept, held_out)


@torch.no_grad()
def read_segments(
    model: SetCon,
    held_out: CutFootage,
    *,
    device: torch.device,
    progress: Callable[[float], None],
) -> MaskScores | None:
    """`EncoderScores.attention` alone, for which no probe is fitted."""
    with _evaluating(model):
        encoded = encode(model, held_out, device=device, outlines=True, progress=progress)
        return segment_scores(model, encoded, held_out)


def fitted_probe(
    model: SetCon,
    train: CutFootage,
    config: ProbeConfig,
    *,
    device: torch.device,
    progress: Callable[[float], None],
    kept: KeptProbe | None = None,
) -> DecoderProbe:
    """The probe that `read` would score."""
    if kept is not None and kept.suits(probe_key(train, config), model):
        return kept.fitted.probe
    with _evaluating(model):
        encoded = encode(model, train, device=device, progress=_part(progress, 0.0, 0.2))
        return fit(encoded, train, config, _part(progress, 0.2, 1.0)).probe


def fit(
    encoded: EncodedFootage,
    cut: CutFootage,
    config: ProbeConfig,
    progress: Callable[[float], None],
) -> FittedProbe:
    """Fit a probe to draw each target from its slots, and from those that were predicted."""
    return fit_probe(
        torch.cat([encoded.current, encoded.predicted]),
        torch.from_numpy(cut.targets),
        config,
        progress=lambda done, total: progress(done / total),
    )


def _part(progress: Callable[[float], None], start: float, stop: float) -> Callable[[float], None]:
    """Progress of a part of the whole."""
    return lambda share: progress(start + (stop - start) * share)


@contextmanager
def _evaluating(model: SetCon) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
