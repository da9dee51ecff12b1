"""Whether an evaluation shows slots or set encodings that have collapsed, or comes too early."""

from __future__ import annotations

from online.scores.evaluation import Evaluation

LEAST_SLOT_ENTROPY = 0.2
"""Below this share of ln(slots), slots are not used."""
LEAST_EFFECTIVE_RANK = 1.5
"""Below this, set encodings lie on a line."""
EARLY_STEPS = 1_000
"""Before this many steps, or all that are planned if they are fewer, nothing is blamed."""


def collapse_alarm(evaluation: Evaluation, *, planned_steps: int) -> str | None:
    """A message if the trained encoder's slots or set encodings have collapsed.

    None as long as it is too early to tell.
    """
    if _is_early(evaluation, planned_steps):
        return None
    if no_object_found(evaluation):
        return "collapse: no object was found; does anything move on its own in the footage?"
    # slots that start at objects leave most of the picture to the background's, and set encodings
    # of the same few objects may well lie on a line
    if evaluation.has_segments:
        return None
    scores = evaluation.trained
    if scores.slot_entropy < LEAST_SLOT_ENTROPY:
        return (
            f"collapse: slot entropy {scores.slot_entropy:.2f}, one slot takes nearly everything; "
            "if objects hardly move, a new run with loss.exclusivity=1 and loss.horizon=4 may "
            "separate them"
        )
    if scores.effective_rank < LEAST_EFFECTIVE_RANK:
        return f"collapse: effective rank {scores.effective_rank:.2f}, all frames look alike"
    return None


def no_object_found(evaluation: Evaluation) -> bool:
    """Whether slots that should start at objects found none on the held-out frames."""
    return evaluation.has_segments and evaluation.trained.slot_entropy == 0


def early_note(evaluation: Evaluation, *, planned_steps: int) -> str | None:
    """What to say instead of an alarm where no object was found so early."""
    if not no_object_found(evaluation) or not _is_early(evaluation, planned_steps):
        return None
    done = f"{evaluation.step:,} of {planned_steps:,} steps"
    return f"no object was found yet, after {done}: too early to tell"


def _is_early(evaluation: Evaluation, planned_steps: int) -> bool:
    return evaluation.step < min(planned_steps, EARLY_STEPS)
