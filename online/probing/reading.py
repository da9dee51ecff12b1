"""One encoder under the probe: fitted on the slots of one part, scored on those of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from online.probing.encoded import CutFootage, EncodedFootage, ProbeFootage, encode
from online.probing.kept import KeptProbe, probe_key
from online.probing.scoring import encoder_scores
from online.scores.evaluation import EncoderScores
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
) -> Reading:
    """Fit and score a probe on `model` as it stands; its weights are not touched.

    One that was `kept` is scored instead, if it was fitted on the same footage.
    """
    with _evaluating(model):
        train = encode(model, footage.train, device=device)
        key = probe_key(footage.train, config)
        if kept is not None and kept.key == key:
            fitted = kept.fitted
        else:
            fitted = fit(train, footage.train, config, lambda share: progress(0.8 * share))
        held_out = encode(model, footage.held_out, device=device, outlines=True)
        progress(0.9)
        scores = encoder_scores(model, fitted, footage, train=train, held_out=held_out)
    progress(1.0)
    return Reading(scores, KeptProbe(key, fitted), held_out)


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
    if kept is not None and kept.key == probe_key(train, config):
        return kept.fitted.probe
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
