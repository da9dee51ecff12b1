"""How a start of a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from online.queue.connection import ClientCounters
from online.queue.feed import FeedCounters
from online.scores.evaluation import Evaluation
from online.session.clock import Spent

Reason = Literal["stopped", "complete", "stream ended", "time is up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    reason: Reason
    step: int
    first_step: int = 0
    """The step from which this start continued."""
    spent: Spent | None = None
    """None where a signal came before the run began or continued."""
    signal_number: int | None = None
    made_probe: bool = False
    """The last probe was made in this start."""
    lacks_only_probe: bool = False
    """Nothing was left but the last probe, which a signal cut off."""
    evaluation: Evaluation | None = None
    """The last probe's; None after a signal, which does not wait for one."""
    report: Path | None = None
    received: ClientCounters = field(default_factory=ClientCounters)
    """What came from all servers in this start."""
    clips: FeedCounters = field(default_factory=FeedCounters)
    """What was done with the clips, in all starts."""
