"""The table of scores: trained beside untrained beside the mean frame, a line of meaning each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from online.scores.evaluation import (
    PLACED_R2,
    EncoderScores,
    Evaluation,
    MaskScores,
    Placed,
    ReconstructionScores,
)

ABSENT = "–"  # noqa: RUF001 - an en dash is meant
"""Stands where there is nothing to score: no masks, or no such number."""

_HEAD = """<thead>
<tr><th rowspan="2" scope="col"></th>
<th colspan="2" scope="colgroup">current frame, s<sub>t</sub></th>
<th colspan="3" scope="colgroup">predicted frame, p<sub>t</sub></th>
<th colspan="2" scope="colgroup">attention maps</th>
<th colspan="3" scope="colgroup">without a model</th>
<th rowspan="2" scope="col">what it means</th></tr>
<tr><th scope="col">trained</th><th scope="col">untrained</th>
<th scope="col">trained</th><th scope="col">untrained</th><th scope="col">copied</th>
<th scope="col">trained</th><th scope="col">untrained</th>
<th scope="col">mean<br>frame</th><th scope="col">blocks</th><th scope="col">colours</th></tr>
</thead>"""
_KINDS = (*("ours", "theirs"), *("ours", "theirs", "theirs"), *("ours", "theirs"))
_ENCODER_HEAD = """<thead>
<tr><th scope="col"></th><th scope="col">trained</th><th scope="col">untrained</th>
<th scope="col">what it means</th></tr>
</thead>"""


@dataclass(frozen=True, slots=True)
class _Reading:
    """A number that the probe's drawings have."""

    name: str
    shown: Callable[[float | None], str]
    of: Callable[[ReconstructionScores], float | None]
    of_mean_frame: Callable[[Evaluation], float | None]
    meaning: str


@dataclass(frozen=True, slots=True)
class _Agreement:
    """A number that masks have, from alphas or from attention."""

    name: str
    of: Callable[[MaskScores], float]
    meaning: str


def small_number(value: float | None) -> str:
    """Three digits that count: `0.00215`."""
    return _finite(value, "#.3g")


def share(value: float | None) -> str:
    """Three decimals: `0.931`."""
    return _finite(value, ".3f")


def decibels(value: float | None) -> str:
    """Two decimals: `24.31`."""
    return _finite(value, ".2f")


_READINGS = (
    _Reading(
        "MSE ↓",
        small_number,
        lambda s: s.mse,
        lambda e: e.mean_frame_mse,
        "Mean squared error of what the probe draws, colours in 0 to 1.",
    ),
    _Reading(
        "MSE share ↓",
        share,
        lambda s: s.mse_share,
        lambda e: 1.0,
        "The same, divided by the error of the mean training frame.",
    ),
    _Reading(
        "PSNR, dB ↑",
        decibels,
        lambda s: s.psnr,
        lambda e: e.mean_frame_psnr,
        "The same on the scale of image compression; 3 dB more is half the error.",
    ),
)
_AGREEMENTS = (
    _Agreement(
        "FG-ARI ↑",
        lambda m: m.fg_ari,
        "Do pixels of one object share a slot, and those of two not? The background is left out.",
    ),
    _Agreement(
        "FG-ARI, video ↑",
        lambda m: m.fg_ari_video,
        "The same over whole clips: an object must also stay in its slot.",
    ),
    _Agreement("ARI ↑", lambda m: m.ari, "The same over all pixels: the background counts too."),
    _Agreement(
        "mBO ↑", lambda m: m.mbo, "How well the best slot covers each object, outline included."
    ),
)


_LEGEND = (
    "Copied: drawn from the trained slots that the prediction starts from, as if nothing moved, "
    "which p<sub>t</sub> has to beat. Blocks: a grid on the image of as many as there are slots, "
    "or fewer. Colours: the nearest of as many as there are slots, found by k-means in the "
    "training part. Where these two do as well, the footage is too easy to show that things are "
    "known."
)


def score_table(evaluation: Evaluation) -> str:
    """Two tables as markup: what can be drawn and told apart, and how the slots are used."""
    rows = [_reading_row(reading, evaluation) for reading in _READINGS]
    rows += [_agreement_row(agreement, evaluation) for agreement in _AGREEMENTS]
    legend = f'<p class="quiet">{_LEGEND}</p>'
    return _table(_HEAD, rows) + legend + _table(_ENCODER_HEAD, _encoder_rows(evaluation))


def _reading_row(reading: _Reading, evaluation: Evaluation) -> str:
    drawn = [
        ABSENT if part is None else reading.shown(reading.of(part)) for part in _drawn(evaluation)
    ]
    mean = reading.shown(reading.of_mean_frame(evaluation))
    return _row(reading.name, [*drawn, ABSENT, ABSENT, mean, ABSENT, ABSENT], reading.meaning)


def _agreement_row(agreement: _Agreement, evaluation: Evaluation) -> str:
    simple = evaluation.without_model
    masks = [part and part.alphas for part in _drawn(evaluation)]
    masks += [evaluation.trained.attention, evaluation.untrained.attention]
    masks += [None, simple and simple.blocks, simple and simple.colours]
    values = [share(None if m is None else agreement.of(m)) for m in masks]
    return _row(agreement.name, values, agreement.meaning)


def _drawn(evaluation: Evaluation) -> list[ReconstructionScores | None]:
    """In the order of the columns."""
    trained, untrained = evaluation.trained, evaluation.untrained
    return [
        *(trained.current, untrained.current),
        *(trained.predicted, untrained.predicted, evaluation.copied),
    ]


def _encoder_rows(evaluation: Evaluation) -> list[str]:
    def row(
        name: str,
        value: Callable[[EncoderScores], float],
        shown: Callable[[float | None], str],
        meaning: str,
    ) -> str:
        both = (evaluation.trained, evaluation.untrained)
        return _row(name, [shown(value(scores)) for scores in both], meaning)

    return [
        row(
            "Probe training MSE",
            lambda s: s.probe_train_mse,
            small_number,
            "Mean over its last tenth of training batches, which draw from s<sub>t</sub> and "
            "p<sub>t</sub> alike: far below both held-out ones, it has overfitted; above both, "
            "more probe steps may help.",
        ),
        row(
            "Slot entropy",
            lambda s: s.slot_entropy,
            share,
            "How evenly slots are used: 1 when each takes the same share, 0 when one takes all.",
        ),
        row(
            "Effective rank",
            lambda s: s.effective_rank,
            decibels,
            "Directions in which whole scenes differ; 1 means that they have collapsed.",
        ),
        *_place_rows(evaluation),
    ]


def _place_rows(evaluation: Evaluation) -> Iterator[str]:
    places, untrained = evaluation.trained.places, evaluation.untrained.places
    if places and untrained:
        each = ", ".join(f"{p.label} by slot {p.slot} ({p.r2:.2f})" for p in places)
        yield _row(
            "Things placed",
            [placed(places), placed(untrained)],
            f"Whose place on held-out frames one slot alone tells, by a linear map (R² of "
            f"{PLACED_R2} and more), whatever the probe draws. Trained, best slots: {each}.",
        )


def placed(places: Sequence[Placed]) -> str:
    """Of how many things a slot knows the place, and how many slots that are if they share."""
    known = [place for place in places if place.is_known]
    slots = len({place.slot for place in known})
    shared = f", by {slots} slot{'s' * (slots != 1)}" if slots < len(known) else ""
    return f"{len(known)} of {len(places)}{shared}"


def _table(head: str, rows: Sequence[str]) -> str:
    return f'<div class="wide scores"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _row(name: str, values: Sequence[str], meaning: str) -> str:
    """The columns of what was trained stand out."""
    kinds = itertools.chain(_KINDS, itertools.repeat("theirs"))
    cells = "".join(
        f'<td class="{kind}">{value}</td>' for kind, value in zip(kinds, values, strict=False)
    )
    return f'<tr><th scope="row">{name}</th>{cells}<td>{meaning}</td></tr>'


def _finite(value: float | None, form: str) -> str:
    return ABSENT if value is None or not math.isfinite(value) else format(value, form)
