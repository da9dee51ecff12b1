"""Every number that says how a model or a run does, declared once, as a row of one table.

    scores.json     drawing ─ MSE, MSE share, PSNR     of each part (`parts.py`)
                    masks ─── FG-ARI, ARI, mBO, mIoU   of each part
                    encoder ─ slot entropy, ...        trained and untrained
    metrics.jsonl   step ──── loss, top-1, ...         over steps, and as training ends
                    prequential ─ next frame found     over steps, and of the latest new clips
    continual.json  continual ─ forgetting, ...        of a stream of recordings

A new measure is computed where those of its kind are, into a field of their class, and gets a row
here. The page, the terminal, curves, TensorBoard and `setcon compare` show it by that row alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from online.scores.evaluation import PLACED_R2, EncoderScores, Evaluation, Placed
from online.scores.numbers import ABSENT, Format, hundredths, share, small_number, whole
from online.scores.parts import Display, Part

Kind = Literal["drawing", "masks", "encoder", "step", "prequential", "continual"]
Tone = Literal["trained", "second", "third", "fourth", "untrained", "chance"]
"""What a line stands for; the page's style sheet has a colour for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A line that a measure's own is drawn over."""

    name: str
    tone: Tone
    key: str = ""
    """Field of the same line of the log, and its name in TensorBoard."""
    read: Callable[[Any], float | None] | None = None
    """Where no field holds the number."""

    def value(self, entry: Any) -> float | None:
        """Read off a line of the log."""
        return getattr(entry, self.key) if self.read is None else self.read(entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number: where it is read, what it means and how it is shown."""

    key: str
    """Field that it is read from, and its name in JSON and TensorBoard."""
    name: str
    meaning: str
    """One sentence."""
    kind: Kind
    """What it is read from: scores of a part or an encoder, a line of the log, a matrix."""
    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    shown: Format = share
    chart: str = ""
    """Title of its chart; by default its name, as held out."""
    is_share: bool = True
    """It lies in 0..1, so its chart shows all of that."""
    baselines: tuple[Baseline, ...] = ()
    is_headline: bool = False
    """Compared for predictions and baselines too, and not for `s_t` alone."""
    left_out: tuple[Display, ...] = ()
    """Where it would say nothing new."""
    read: Callable[[Any], float | None] | None = None
    """Where the field is not itself the number."""
    words: Callable[[Any], str] | None = None
    """Says more than the number, in tables."""

    @property
    def title(self) -> str:
        """Title of its chart, and of a tile."""
        return self.chart or f"Held-out {self.name}"

    @property
    def heading(self) -> str:
        """Name, unit and an arrow that points to the better side."""
        unit = f", {self.unit}" if self.unit else ""
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
        return f"{self.name}{unit}{arrow}"

    def value(self, scores: Any) -> float | None:
        """Read off scores of its kind; None where there are none, or older than the measure."""
        if scores is None:
            return None
        return getattr(scores, self.key) if self.read is None else self.read(scores)

    def of_part(self, evaluation: Evaluation, part: Part) -> float | None:
        """Read off a part of an evaluation."""
        return self.value((part.drawing if self.kind == "drawing" else part.masks)(evaluation))

    def text(self, scores: Any) -> str:
        """As a table shows it."""
        value = self.value(scores)
        if value is None:
            return ABSENT
        return self.shown(value) if self.words is None else self.words(scores)


def measures(display: Display, *kinds: Kind) -> list[Measure]:
    """The rows of these kinds that are shown there, in order."""
    return [m for m in MEASURES if m.kind in kinds and display not in m.left_out]


def placed(places: Sequence[Placed]) -> str:
    """For how many objects a slot knows the place, and how many slots, if objects share them."""
    known = [place for place in places if place.is_known]
    slots = len({place.slot for place in known})
    shared = f", by {slots} slot{'s' * (slots != 1)}" if slots < len(known) else ""
    return f"{len(known)} of {len(places)}{shared}"


def _placed_share(scores: EncoderScores) -> float | None:
    return statistics.mean(p.is_known for p in scores.places) if scores.places else None


MSE_SHARE = Measure(
    key="mse_share",
    name="MSE share",
    meaning="Error of what the probe draws, divided by that of the mean training frame: 1 means "
    "that nothing was read.",
    kind="drawing",
    better="lower",
    is_share=False,
    is_headline=True,
)
FG_ARI = Measure(
    key="fg_ari",
    name="FG-ARI",
    meaning="Do pixels of one object share a slot, and pixels of different objects not? The "
    "background is left out; 1 is perfect, 0 chance.",
    kind="masks",
    better="higher",
    is_headline=True,
)
ARI = Measure(
    key="ari",
    name="ARI",
    meaning="Like FG-ARI, but over all pixels: the background counts too.",
    kind="masks",
    better="higher",
    left_out=("curves",),
)
MBO = Measure(
    key="mbo",
    name="mBO",
    meaning="How well the best slot covers each object, outline included.",
    kind="masks",
    better="higher",
    left_out=("curves",),
)
LOSS = Measure(
    key="loss",
    name="loss",
    meaning="How hard it is to tell the predicted state from all others; at chance, nothing is "
    "learned. With loss.horizon, the mean over all steps ahead, so runs with different horizons "
    "cannot be compared.",
    kind="step",
    better="lower",
    shown=hundredths,
    chart="Training loss",
    is_share=False,
    baselines=(Baseline(name="chance", tone="chance", key="chance_loss"),),
)
TOP1 = Measure(
    key="top1",
    name="top-1",
    meaning="Share of predictions, one step ahead, nearest to their own state among all "
    "candidates of the batch.",
    kind="step",
    better="higher",
    chart="Training top-1",
)
EXCLUSIVITY = Measure(
    key="exclusivity",
    name="exclusivity",
    meaning="How much of what a slot reads no other slot reads, mean over slots. It needs no "
    "masks.",
    kind="step",
    better="higher",
    chart="Exclusivity of slots",
)
NEXT_FRAME = Measure(
    key="top1",
    name="next frame found",
    meaning="Each clip is scored before it is learned from: how often the right frame is found "
    "among frames of other times. The curve ends when no footage is new any more.",
    kind="prequential",
    better="higher",
    chart="Next frame found, on new footage",
    baselines=(
        Baseline(name="chance", tone="chance", read=lambda e: 1 / (e.candidates + 1)),
        Baseline(name="untrained encoder", tone="untrained", key="top1_untrained"),
        Baseline(name="last state copied", tone="second", key="top1_copy"),
    ),
)
TRIPLETS_PER_SECOND = Measure(
    key="triplets_per_second",
    name="triplets/s",
    meaning="Triplets learned from per second.",
    kind="step",
    better="higher",
    shown=whole,
    chart="Throughput",
    is_share=False,
    left_out=("compare",),
)

MEASURES = (
    Measure(
        key="mse",
        name="MSE",
        meaning="Mean squared error of what the probe draws, colours in 0 to 1.",
        kind="drawing",
        better="lower",
        shown=small_number,
        left_out=("curves", "compare"),
    ),
    MSE_SHARE,
    Measure(
        key="psnr",
        name="PSNR",
        meaning="MSE on the scale of image compression; 3 dB more is half the error.",
        kind="drawing",
        better="higher",
        unit="dB",
        shown=hundredths,
        left_out=("curves", "compare"),
    ),
    FG_ARI,
    Measure(
        key="fg_ari_video",
        name="FG-ARI, video",
        meaning="FG-ARI over whole clips: an object must also stay in its slot.",
        kind="masks",
        better="higher",
        left_out=("terminal", "curves", "compare"),
    ),
    ARI,
    MBO,
    Measure(
        key="miou",
        name="mIoU",
        meaning="How well slots cover the objects if no slot may serve two of them; an object "
        "without a slot counts 0.",
        kind="masks",
        better="higher",
    ),
    Measure(
        key="probe_train_mse",
        name="probe training MSE",
        meaning="Mean over its last tenth of training batches, which draw from s_t and p_t alike: "
        "far below both held-out ones, it has overfitted; above both, more probe steps may help.",
        kind="encoder",
        shown=small_number,
        left_out=("terminal", "curves", "compare"),
    ),
    Measure(
        key="slot_entropy",
        name="slot entropy",
        meaning="How evenly slots are used: 1 when each takes the same share, 0 when one takes "
        "all.",
        kind="encoder",
        left_out=("terminal", "curves", "compare"),
    ),
    Measure(
        key="effective_rank",
        name="effective rank",
        meaning="Directions in which whole scenes differ; 1 means that they have collapsed.",
        kind="encoder",
        shown=hundredths,
        is_share=False,
        left_out=("terminal", "curves", "compare"),
    ),
    Measure(
        key="places",
        name="objects placed",
        meaning="Objects whose place on held-out frames one slot alone gives, by a linear map (R² "
        f"of {PLACED_R2} and more), whatever the probe draws.",
        kind="encoder",
        better="higher",
        read=_placed_share,
        words=lambda scores: placed(scores.places),
        left_out=("curves",),
    ),
    LOSS,
    TOP1,
    EXCLUSIVITY,
    NEXT_FRAME,
    TRIPLETS_PER_SECOND,
    Measure(
        key="wait_share",
        name="share of time",
        meaning="Share of time in which the trainer had no clip to continue with.",
        kind="step",
        better="lower",
        chart="Waiting for data",
        left_out=("compare",),
    ),
    Measure(
        key="delay_seconds",
        name="delay",
        meaning="From the capture of the newest frame to its arrival in the trainer.",
        kind="step",
        better="lower",
        unit="s",
        left_out=("curves", "compare"),
    ),
    Measure(
        key="final",
        name="average at the end",
        meaning="Mean over recordings of the last row.",
        kind="continual",
        better="higher",
    ),
    Measure(
        key="forgetting",
        name="forgotten since the best",
        meaning="What was lost of the best score, mean over recordings but the last.",
        kind="continual",
        better="lower",
    ),
    Measure(
        key="backward_transfer",
        name="backward transfer",
        meaning="What later segments did to a recording since it was learned.",
        kind="continual",
        better="higher",
    ),
    Measure(
        key="forward_transfer",
        name="forward transfer",
        meaning="What earlier segments gave to a recording before it was learned, over the "
        "untrained encoder.",
        kind="continual",
        better="higher",
    ),
    Measure(
        key="lowest",
        name="lowest on the way",
        meaning="Mean over recordings of the lowest score after each one's own segment.",
        kind="continual",
        better="higher",
    ),
    Measure(
        key="reached",
        name="of the other run's gain",
        meaning="Share of the other run's gain over the untrained encoder that the end keeps.",
        kind="continual",
        better="higher",
    ),
)
"""All measures, in the order in which they are shown."""
