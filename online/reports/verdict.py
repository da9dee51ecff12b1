"""A run in a sentence or two of plain words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from online.runs.entries import PrequentialEntry
from online.runs.log import RunLog
from online.scores.collapse import early_note, no_object_found
from online.scores.evaluation import (
    LEAST_CLIPS,
    RECENT_CLIPS,
    EncoderScores,
    Evaluation,
    MaskScores,
    Placed,
)
from online.scores.measures import ARI, FG_ARI, MBO, MSE_SHARE, Measure
from online.scores.numbers import hundredths
from online.scores.parts import WITHOUT_MODEL

CLEAR_GAIN = 0.2
"""FG-ARI, or mBO of segments, above the untrained encoder's that is not an accident of one seed."""
SLIGHT_GAIN = 0.05
SEPARATED = 0.8
"""FG-ARI from which objects have slots of their own: with two of three, 0.7 is reached."""
PARTLY_SEPARATED = 0.5
"""FG-ARI from which some have."""
SPLIT_BACKGROUND = 0.5
"""ARI below this share of FG-ARI: the background is spread over slots."""
PATCHES = 0.25
"""mBO below which segments are patches of the picture: on three balls its quarters score 0.21, and
an FG-ARI of 0.71, as the balls are in different quarters."""
NOTHING_READ = 0.95
"""Share of the mean frame's error from which a probe has read next to nothing."""
WORSE_THAN_MEAN = 1.05
"""Share of it from which the mean frame is the better picture."""
CLEAR_LEAD = 0.05
"""Share of next frames found beyond copying: a smaller one may be chance, among as few clips."""


def verdict(run: RunLog) -> str:
    """What the run has learned, as far as its latest probe and its log show."""
    recent = recent_top1(run.prequential)
    if recent is None:
        return _objects(run)
    return f"{_objects(run)} {_foresight(recent)}{_only_early(run, recent)}"


def evaluation_verdict(evaluation: Evaluation, *, planned_steps: int | None = None) -> str:
    """What a probe says of the slots of a run that is to take `planned_steps`, if known."""
    return f"{_lesson(evaluation, planned_steps)} {_figures(evaluation)}"


def so_far(step: int, steps: int, evaluation: Evaluation) -> str:
    """What a run that was cut short has learned; empty for a whole one."""
    if step >= steps:
        return ""
    lesson = _lesson(evaluation, steps)
    if no_object_found(evaluation):  # says how far it is
        return lesson
    return f"{learned_so_far(step, steps)}. {lesson}"


def learned_so_far(step: int, steps: int) -> str:
    """How far a run has come."""
    return f"{step:,} of {steps:,} steps are learned so far"


def _objects(run: RunLog) -> str:
    if run.evaluation is not None:
        planned = None if run.source is None else run.source.steps
        return evaluation_verdict(run.evaluation, planned_steps=planned)
    if not run.steps:
        return "Nothing has been learned yet: the log holds no training step."
    last = run.steps[-1]
    chance = "" if last.chance_loss is None else f" (chance {last.chance_loss:.2f})"
    loss = "unknown" if last.loss is None else f"{last.loss:.2f}"
    return (
        f"No probe has run yet, so nothing is known of objects. "
        f"After {last.step:,} steps the training loss is {loss}{chance}."
    )


def recent_top1(entries: list[PrequentialEntry]) -> PrequentialEntry | None:
    """The mean of the latest scores on new footage; None while they are too few."""
    recent = entries[-RECENT_CLIPS:]
    if len(recent) < LEAST_CLIPS:
        return None
    return PrequentialEntry(
        step=recent[-1].step,
        top1=float(np.mean([e.top1 for e in recent])),
        top1_copy=float(np.mean([e.top1_copy for e in recent])),
        top1_untrained=float(np.mean([e.top1_untrained for e in recent])),
        candidates=recent[-1].candidates,
    )


def judged(encoder: EncoderScores, evaluation: Evaluation) -> MaskScores | None:
    """The masks that say what slots hold: segments that slots start at need no probe."""
    return encoder.attention if evaluation.has_segments else encoder.current.alphas


def judged_by(evaluation: Evaluation) -> Measure:
    """What decides: of segments, outlines, as pieces of everything have a high FG-ARI, which
    ignores the background."""
    return MBO if evaluation.has_segments else FG_ARI


def _value(masks: MaskScores, evaluation: Evaluation) -> float:
    return masks.mbo if evaluation.has_segments else masks.fg_ari


def _lesson(evaluation: Evaluation, planned_steps: int | None) -> str:
    if no_object_found(evaluation):
        return " ".join([_nothing_found(evaluation, planned_steps), *_poorly_drawn(evaluation)])
    trained = judged(evaluation.trained, evaluation)
    untrained = judged(evaluation.untrained, evaluation)
    if trained is None or untrained is None:
        return _without_masks(evaluation)
    gain = _value(trained, evaluation) - _value(untrained, evaluation)
    if gain < SLIGHT_GAIN:
        return "The slots do not tell objects apart better than an untrained encoder's."
    if trained.mbo < PATCHES:
        return (
            "The slots divide the picture into patches, not into objects: an object and its best "
            f"patch overlap by only {trained.mbo:.2f} ({MBO.name}), whatever the "
            f"{FG_ARI.name} says."
        )
    if not_better := _not_better_than_simple(trained, evaluation):
        return not_better
    return _object_lesson(trained, gain, evaluation.trained.places or [])


def _nothing_found(evaluation: Evaluation, planned_steps: int | None) -> str:
    if planned_steps is None or planned_steps < evaluation.step:
        return f"No object was found, after {evaluation.step:,} steps."
    note = early_note(evaluation, planned_steps=planned_steps)
    if note is not None:
        return f"{note[0].upper()}{note[1:]}."
    return f"No object was found, after {evaluation.step:,} of {planned_steps:,} steps."


def _without_masks(evaluation: Evaluation) -> str:
    """What is known where no masks say which object is which."""
    poor = _poorly_drawn(evaluation)
    if poor and not evaluation.has_segments:
        return poor[0]
    why = "This footage has no object masks"
    if evaluation.frames_without_two_objects:
        why = "No frame shows two objects with masks"
    # segments do not depend on the probe: they may be good where its pictures are not
    return " ".join([f"{why}: judge the slots by the pictures.", *poor])


def _poorly_drawn(evaluation: Evaluation) -> list[str]:
    """A sentence if the probe draws nothing beyond the mean frame; else none."""
    share = evaluation.trained.current.mse_share
    if share is None or share < NOTHING_READ:
        return []
    if share < WORSE_THAN_MEAN:
        return ["The probe reads next to nothing from the slots."]
    return ["What the probe draws from the slots is worse than the mean frame."]


def _not_better_than_simple(trained: MaskScores, evaluation: Evaluation) -> str | None:
    """What to say where a segmentation without a model does as well; None where none does."""
    simple = [(part.column, m) for part in WITHOUT_MODEL if (m := part.masks(evaluation))]
    name, best = max(simple, key=lambda each: _value(each[1], evaluation), default=("", None))
    if best is None:
        return None
    lead = _value(trained, evaluation) - _value(best, evaluation)
    if lead >= SLIGHT_GAIN:
        return None
    is_ahead = -lead >= SLIGHT_GAIN
    said = (
        f"The slots tell objects apart {'less well' if is_ahead else 'no better'} than a "
        f"segmentation that needs no model ({name}: "
        f"{judged_by(evaluation).name} {_value(best, evaluation):.2f})"
    )
    outlines = max(masks.mbo for _, masks in simple)
    if trained.mbo - outlines >= SLIGHT_GAIN:
        return (
            f"{said}; only outlines ({MBO.name} {trained.mbo:.2f} against at most {outlines:.2f}) "
            "demonstrate object knowledge."
        )
    if best.fg_ari >= SEPARATED and not is_ahead:
        return f"{said}: this footage is too easy to demonstrate object knowledge."
    return f"{said}."


def _object_lesson(trained: MaskScores, gain: float, places: Sequence[Placed]) -> str:
    """What slots show that do better than any segmentation without a model."""
    if gain < CLEAR_GAIN or trained.fg_ari < PARTLY_SEPARATED:
        return "The slots have begun to tell the objects apart."
    if trained.fg_ari < SEPARATED:
        return "The slots tell some of the objects apart; others share a slot, or have none."
    known = sum(place.is_known for place in places)
    if known < len(places):
        return (
            "The slots tell objects apart, but not all: a single slot gives the place of only "
            f"{known} of {len(places)}."
        )
    if trained.ari < SPLIT_BACKGROUND * trained.fg_ari:
        return (
            "The slots tell the objects apart, but share the background among them "
            f"({ARI.name} over all pixels {trained.ari:.2f})."
        )
    return "The slots tell the objects apart."


def _foresight(recent: PrequentialEntry) -> str:
    """Whether the transition adds anything to what the last frame's slots already say."""
    lead = recent.top1 - recent.top1_copy
    if recent.top1_copy > 1 - CLEAR_LEAD and lead > -CLEAR_LEAD:
        return (
            "On new footage a copy of the last state finds the next frame nearly always "
            f"({recent.top1_copy:.2f} of the time, the prediction {recent.top1:.2f}): too easy to "
            "show whether the model foresees motion."
        )
    how = "more often than" if lead >= CLEAR_LEAD else "about as often as"
    if lead <= -CLEAR_LEAD:
        how = "less often than"
    return (
        f"On new footage the model's predictions find the next frame {how} a copy of the last "
        f"state does ({recent.top1:.2f} against {recent.top1_copy:.2f} of the time)"
        + ("." if lead >= CLEAR_LEAD else ": nothing shows that it foresees motion.")
    )


def _only_early(run: RunLog, recent: PrequentialEntry) -> str:
    """A caveat for a run that saw nothing new for most of its steps."""
    if run.reached is None or 2 * recent.step > run.reached.step:
        return ""
    return (
        f" No footage was new after step {recent.step:,}, so this describes the model as of then."
    )


def _figures(evaluation: Evaluation) -> str:
    trained, untrained = evaluation.trained, evaluation.untrained
    share, other = (hundredths(each.current.mse_share) for each in (trained, untrained))
    masks, others = (judged(each, evaluation) for each in (trained, untrained))
    if masks is None or others is None:
        return f"{MSE_SHARE.title} {share}, untrained encoder {other}."
    if evaluation.has_segments:
        found, before = (
            f"{each.mbo:.2f} ({FG_ARI.name} {each.fg_ari:.2f}, {ARI.name} {each.ari:.2f})"
            for each in (masks, others)
        )
        return (
            f"Held-out {MBO.name} of the segments {found}, untrained encoder {before}; "
            f"{MSE_SHARE.name} {share}."
        )
    return (
        f"{FG_ARI.title} {masks.fg_ari:.2f}, untrained encoder {others.fg_ari:.2f}; "
        f"{MSE_SHARE.name} {share}."
    )
