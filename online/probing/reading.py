"""One encoder under the probe: fitted on the slots of one part, scored on those of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from online.probing.encoded import CutFootage, EncodedFootage, ProbeFootage, encode
from online.probing.scoring import encoder_scores
from online.scores.evaluation import EncoderScores
from setcon.config import ProbeConfig
from setcon.model import SetCon
from setcon.probe import DecoderProbe, FittedProbe, fit_probe


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one encoder and its probe make of the held-out footage."""

    scores: EncoderScores
    probe: DecoderProbe
    encoded: EncodedFootage


@torch.no_grad()
def read(
    model: SetCon,
    footage: ProbeFootage,
    config: ProbeConfig,
    *,
    device: torch.device,
    progress: Callable[[float], None],
) -> Reading:
    """Fit and score a probe on `model` as it stands; its weights are not touched."""
    with _evaluating(model):
        train = encode(model, footage.train, device=device)
        fitted = fit(train, footage.train, config, lambda share: progress(0.8 * share))
        held_out = encode(model, footage.held_out, device=device, outlines=True)
        progress(0.9)
        scores = encoder_scores(model, fitted, footage, train=train, held_out=held_out)
    progress(1.0)
    return Reading(scores, fitted.probe, held_out)


def fitted_probe(
    model: SetCon,
    train: CutFootage,
    config: ProbeConfig,
    *,
    device: torch.device,
    progress: Callable[[float], None],
) -> DecoderProbe:
    """The probe that `read` would score."""
    with _evaluating(model):
        return fit(encode(model, train, device=device), train, config, progress).probe


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


@contextmanager
def _evaluating(model: SetCon) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
